//! Pictures from bytes to the pixels a model sees. Pure functions without tensors, for any thread.
//!
//! The header is judged before anything is decoded, so a picture of 600 megapixels costs nothing.
//! What is decoded is what Pillow's `Image.open(file).convert("RGB")` gives:
//!
//! - JPEG by libjpeg-turbo, which is Pillow's decoder too. Grey is widened, and four inks are taken
//!   for Adobe's inverted ones. Faults that libjpeg only warns of are decoded across; its errors
//!   refuse the file, as do more than 8 bits a channel.
//! - PNG and WebP, their palettes and keyed colours resolved. Alpha is dropped, not composited: the
//!   colours below it show. Of an animation, the first frame.
//! - Orientation and colour profiles are not heeded.
//!
//! It departs from Pillow in two things:
//!
//! - PNGs of 16 bits are rounded to 8. Pillow cuts the lower byte off colours, and cuts grey at 255,
//!   which makes nearly all of it white.
//! - A JPEG without its end marker is unreadable even if only the marker is missing, so that a
//!   truncated one is never half grey.
//!
//! [`Darkroom`] makes training crops faster; [`Detail`] says what that may cost.
//!
//! Pixels equal open_clip's over Pillow 13: bicubic with antialias, shortest side, centre crop, of pictures that were
//! converted to RGB first, as its data loaders do (webdataset's "pilrgb", torchvision's ImageFolder).
//! Its transform alone, given a file as opened, would convert last: palettes and 1-bit pictures then
//! lose their antialias, and transparent colours their weight.

mod crop;
mod darkroom;
mod decode;
mod jpeg;
mod resize;
mod turbo;

pub use crop::{Crop, drawn_crop};
pub use darkroom::{Darkroom, Detail};
pub use decode::{DecodeError, decode_rgb, probe};
pub use resize::{Interpolation, ResizeMode, eval_pixels, eval_pixels_as, train_pixels};

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
