//! The training path: pictures one after the other, without new memory for each.
//!
//! A picture is refused exactly when `decode_rgb` refuses it.

use fast_image_resize::images::{TypedCroppedImage, TypedImageRef};
use fast_image_resize::pixels::U8x4;

use super::crop::{Crop, drawn_crop};
use super::decode::{DecodeError, Format, decode_rgb};
use super::jpeg;
use super::resize::{Interpolation, Order, Window, Workbench, side, view};
use super::turbo::Shrink;

/// Buffers of more bytes than this are given back after the picture that wanted them.
const MOST_BYTES_KEPT: usize = 32 << 20;

/// How close a training crop comes to Pillow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The very bytes that `train_pixels` makes of `decode_rgb`'s picture.
    Exact,
    /// The same crop, but a JPEG is decoded to a half, a quarter or an eighth of its sides where that
    /// leaves the crop at least as many pixels each way as are wanted.
    ///
    /// On photographs the pixels are off by 0.2 of 255 on average where nothing is shrunk, 0.6 where
    /// the crop keeps twice the pixels that are wanted, and 2 where it keeps hardly more. Bilinear
    /// instead of bicubic is off by 1.5.
    Enough,
}

/// What one thread makes training crops with.
///
/// No picture leaves a trace in the next one: what is kept is memory, never its content.
#[derive(Default)]
pub struct Darkroom {
    workbench: Workbench,
    /// `[height, width, 4]` of a JPEG
    pixels: Vec<u8>,
}

impl Darkroom {
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes a picture of at most `max_pixels` pixels, and takes the random crop that `draw` decides.
    ///
    /// An error leaves `out` as it was.
    ///
    /// # Shapes
    ///
    /// - `out`: `[3, size, size]`
    pub fn train_pixels_into(
        &mut self,
        bytes: &[u8],
        max_pixels: u64,
        size: usize,
        draw: u64,
        detail: Detail,
        out: &mut [u8],
    ) -> Result<(), DecodeError> {
        assert_eq!(out.len(), 3 * size * size, "room for three channels of {size} x {size}");
        match Format::of(bytes)? {
            Format::Jpeg => {
                let made = self.jpeg(bytes, max_pixels, size, draw, detail, out);
                self.give_back();
                made
            }
            Format::Png | Format::WebP => {
                let image = decode_rgb(bytes, max_pixels)?;
                let crop = drawn_crop((image.width, image.height), draw);
                self.workbench.resize_crop(&view(&image), crop, side(size), out);
                Ok(())
            }
        }
    }

    fn jpeg(
        &mut self,
        bytes: &[u8],
        max_pixels: u64,
        size: usize,
        draw: u64,
        detail: Detail,
        out: &mut [u8],
    ) -> Result<(), DecodeError> {
        let side = side(size);
        let jpeg = jpeg::open(bytes, max_pixels)?;
        let crop = drawn_crop((jpeg.width, jpeg.height), draw);
        let shrink = match detail {
            Detail::Enough if jpeg.shrinks() => enough(crop, side),
            Detail::Enough | Detail::Exact => Shrink::Not,
        };
        let (width, height) = jpeg.sides(shrink);
        jpeg::decode_padded(jpeg, shrink, &mut self.pixels)?;
        let picture = TypedImageRef::<U8x4>::from_buffer(width, height, &self.pixels)
            .expect("four bytes for each pixel");
        match detail {
            Detail::Exact => self.workbench.resize_crop(&picture, crop, side, out),
            Detail::Enough => {
                let (Crop { left, top, width, height }, window) = shrunk(crop, shrink);
                let part = TypedCroppedImage::from_ref(&picture, left, top, width, height)
                    .expect("the crop lies within the picture");
                // The faster order: going down works on whole rows at once, and leaves fewer of them.
                let (filter, order) = (Interpolation::Bicubic, Order::DownFirst);
                self.workbench.resize(&part, &window, filter, order, side, out);
            }
        }
        Ok(())
    }

    fn give_back(&mut self) {
        if self.pixels.len() + self.workbench.size() > MOST_BYTES_KEPT {
            *self = Self::default();
        }
    }
}

/// The strongest shrinking that leaves a crop `side` pixels each way.
fn enough(crop: Crop, side: u32) -> Shrink {
    let leaves_enough = |shrink: &Shrink| crop.width.min(crop.height) / shrink.factor() >= side;
    Shrink::ALL.into_iter().find(leaves_enough).unwrap_or(Shrink::Not)
}

/// Where a crop lies in the shrunk picture: the pixels that it touches, and its borders within them.
fn shrunk(crop: Crop, shrink: Shrink) -> (Crop, Window) {
    let factor = shrink.factor();
    let axis = |start: u32, length: u32| {
        let first = start / factor;
        let count = (start + length).div_ceil(factor) - first;
        let offset = f64::from(start) / f64::from(factor) - f64::from(first);
        (first, count, offset, f64::from(length) / f64::from(factor))
    };
    let (left, columns, window_left, window_width) = axis(crop.left, crop.width);
    let (top, rows, window_top, window_height) = axis(crop.top, crop.height);
    let window =
        Window { left: window_left, top: window_top, width: window_width, height: window_height };
    (Crop { left, top, width: columns, height: rows }, window)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buffers_of_a_huge_picture_are_given_back() {
        // 4,000 x 4,000 by its header; what the file lacks comes out grey.
        let mut huge = include_bytes!("../tests/golden/pixels/grey.jpg").to_vec();
        let frame = huge.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        huge[frame + 5..frame + 9].copy_from_slice(&[0x0f, 0xa0, 0x0f, 0xa0]);
        let (mut darkroom, mut out) = (Darkroom::new(), [0; 3 * 32 * 32]);
        let mut make = |bytes: &[u8]| {
            darkroom.train_pixels_into(bytes, 1 << 26, 32, 1, Detail::Exact, &mut out).unwrap();
            darkroom.pixels.len()
        };
        let usual = make(include_bytes!("../tests/golden/pixels/scene.jpg"));
        assert!((1..MOST_BYTES_KEPT).contains(&usual));
        assert_eq!(make(&huge), 0);
    }

    proptest! {
        #[test]
        fn no_crop_is_shrunk_below_the_wanted_side_nor_out_of_the_picture(
            width in 1..3000u32, height in 1..3000u32, draw: u64, side in 1..500u32,
        ) {
            let crop = drawn_crop((width, height), draw);
            let shrink = enough(crop, side);
            let factor = shrink.factor();
            let least = crop.width.min(crop.height);
            prop_assert!(shrink == Shrink::Not || least >= factor * side);
            prop_assert!(shrink == Shrink::Eightfold || least < 2 * factor * side);
            let (part, window) = shrunk(crop, shrink);
            prop_assert!(part.left + part.width <= width.div_ceil(factor));
            prop_assert!(part.top + part.height <= height.div_ceil(factor));
            // Back at full size it is the crop again.
            let back = |start: u32, offset: f64| f64::from(factor) * (f64::from(start) + offset);
            prop_assert_eq!(back(part.left, window.left), f64::from(crop.left));
            prop_assert_eq!(back(part.top, window.top), f64::from(crop.top));
            prop_assert_eq!(back(0, window.width), f64::from(crop.width));
            prop_assert_eq!(back(0, window.height), f64::from(crop.height));
            prop_assert!(window.left + window.width <= f64::from(part.width));
            prop_assert!(window.top + window.height <= f64::from(part.height));
        }
    }
}
