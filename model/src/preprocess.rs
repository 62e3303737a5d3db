//! Pictures from bytes to the pixels a model sees. Pure functions without tensors, for any thread.
//!
//! The header is judged before anything is decoded, so a picture of 600 megapixels costs nothing.
//! Alpha is composited on white; 16-bit channels are rounded to 8 bits. A JPEG that ends before
//! its end marker is unreadable, never half grey.
//!
//! Pixels equal Pillow's as torchvision calls it: bicubic with antialias, shortest side, centre crop.

mod decode;
mod jpeg;
mod resize;

pub use decode::{DecodeError, decode_rgb, probe};
pub use resize::{eval_pixels, train_pixels};

/// A decoded picture: rows of red, green, blue bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    pub width: u32,
    pub height: u32,
    /// `[height, width, 3]`
    pub data: Vec<u8>,
}

#[cfg(test)]
mod tests;
