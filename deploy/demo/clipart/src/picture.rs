//! A picture's pixels: decoded, laid on white, made small.
//!
//! Invariants: nothing is decoded whose header announces more than
//! [`MOST_PIXELS`]; every result has a short side of exactly [`SHORT_SIDE`] and a
//! long side of at most [`LONG_SIDE`].

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;
use std::sync::Mutex;

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage, imageops};

use crate::manifest::Cause;

/// Judged by the header, before decoding.
pub(crate) const MOST_PIXELS: u64 = 64_000_000;
pub(crate) const SHORT_SIDE: u32 = 128;
pub(crate) const LONG_SIDE: u32 = 1024;
pub(crate) const JPEG_QUALITY: u8 = 90;

/// Larger ones are decoded one at a time, so that threads do not add up memory.
const LARGE_PIXELS: u64 = 8_000_000;
static ONE_LARGE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A picture ready to be written.
#[derive(Debug)]
pub(crate) struct Small {
    pub rgb: RgbImage,
    /// Whether white was added because the picture is a very long strip.
    pub padded: bool,
}

/// Why a picture has no pixels, and the details a reader of the list needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPixels {
    pub cause: Cause,
    pub detail: String,
}

impl NoPixels {
    fn new(cause: Cause, detail: impl ToString) -> Self {
        Self { cause, detail: detail.to_string() }
    }
}

/// Opens the picture at `path` and makes it small.
pub(crate) fn read(path: &Path) -> Result<Small, NoPixels> {
    let file = File::open(path).map_err(|error| NoPixels::new(Cause::Unreadable, error))?;
    decode(BufReader::new(file)).map(|image| shrink(&on_white(image)))
}

fn decode(source: impl BufRead + Seek) -> Result<DynamicImage, NoPixels> {
    let undecodable = |error: image::ImageError| NoPixels::new(Cause::Undecodable, error);
    let mut reader = ImageReader::new(source)
        .with_guessed_format()
        .map_err(|error| NoPixels::new(Cause::Unreadable, error))?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(1 << 30);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(undecodable)?;

    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MOST_PIXELS {
        return Err(NoPixels::new(Cause::TooManyPixels, format!("{width}x{height}")));
    }
    if pixels == 0 {
        return Err(NoPixels::new(Cause::Undecodable, format!("{width}x{height}")));
    }
    // A thread that panicked while decoding leaves nothing half-done behind the lock.
    let _alone = (pixels > LARGE_PIXELS)
        .then(|| ONE_LARGE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    Ok(to_eight_bits(image))
}

/// Eight bits a channel, with alpha only if there was any.
fn to_eight_bits(image: DynamicImage) -> DynamicImage {
    if image.color().has_alpha() {
        DynamicImage::ImageRgba8(image.into_rgba8())
    } else {
        DynamicImage::ImageRgb8(image.into_rgb8())
    }
}

/// Lays the picture on white, in place: one copy of a large picture is enough.
fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let (width, height) = (image.width(), image.height());
    let mut bytes = image.into_rgba8().into_raw();
    let pixels = bytes.len() / 4;
    for pixel in 0..pixels {
        let alpha = u32::from(bytes[pixel * 4 + 3]);
        for channel in 0..3 {
            let color = u32::from(bytes[pixel * 4 + channel]);
            let mixed = (color * alpha + 255 * (255 - alpha) + 127) / 255;
            bytes[pixel * 3 + channel] = u8::try_from(mixed).unwrap_or(u8::MAX);
        }
    }
    bytes.truncate(pixels * 3);
    RgbImage::from_raw(width, height, bytes).expect("three bytes were written for each pixel")
}

/// Scales the short side to [`SHORT_SIDE`], up or down.
///
/// A strip that would become longer than [`LONG_SIDE`] is scaled to that length
/// instead and centred on white: nothing is cut off and nothing is squashed.
fn shrink(image: &RgbImage) -> Small {
    let (width, height) = image.dimensions();
    let short = width.min(height);
    let is_strip = scaled(width.max(height), SHORT_SIDE, short) > LONG_SIDE;
    let (to, from) = if is_strip { (LONG_SIDE, width.max(height)) } else { (SHORT_SIDE, short) };
    let rgb = resize(image, scaled(width, to, from), scaled(height, to, from));
    if !is_strip {
        return Small { rgb, padded: false };
    }
    let (width, height) = (rgb.width().max(SHORT_SIDE), rgb.height().max(SHORT_SIDE));
    let mut canvas = RgbImage::from_pixel(width, height, Rgb([u8::MAX; 3]));
    let (left, top) = ((width - rgb.width()) / 2, (height - rgb.height()) / 2);
    imageops::replace(&mut canvas, &rgb, left.into(), top.into());
    Small { rgb: canvas, padded: true }
}

/// `length * to / from`, rounded, at least one pixel.
fn scaled(length: u32, to: u32, from: u32) -> u32 {
    let (length, to, from) = (u64::from(length), u64::from(to), u64::from(from));
    u32::try_from(((length * to + from / 2) / from).max(1)).unwrap_or(u32::MAX)
}

fn resize(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let mut small = RgbImage::new(width, height);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new()
        .resize(image, &mut small, &options)
        .expect("both pictures have three channels of eight bits and at least one pixel");
    small
}

/// The bytes of a JPEG file of `rgb`.
pub(crate) fn to_jpeg(rgb: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode_image(rgb)
        .expect("a small picture is encoded into memory");
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Luma, Rgba, RgbaImage};

    use super::*;

    fn png(image: impl Into<DynamicImage>) -> Cursor<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.set_position(0);
        bytes
    }

    fn sides(width: u32, height: u32) -> (u32, u32) {
        shrink(&RgbImage::new(width, height)).rgb.dimensions()
    }

    #[test]
    fn transparency_is_laid_on_white() {
        let mut image = RgbaImage::from_pixel(2, 2, Rgba([0, 0, 0, 0]));
        image.put_pixel(0, 0, Rgba([200, 0, 0, 255]));
        image.put_pixel(1, 0, Rgba([0, 0, 0, 128]));
        let rgb = on_white(decode(png(image)).unwrap());
        assert_eq!(rgb.get_pixel(0, 0).0, [200, 0, 0]);
        assert_eq!(rgb.get_pixel(1, 0).0, [127, 127, 127]);
        assert_eq!(rgb.get_pixel(0, 1).0, [255, 255, 255]);
        assert_eq!(rgb.get_pixel(1, 1).0, [255, 255, 255]);
    }

    #[test]
    fn grey_and_sixteen_bit_pictures_become_rgb() {
        let grey = image::ImageBuffer::from_pixel(3, 3, Luma([40u16 << 8]));
        let rgb = on_white(decode(png(DynamicImage::ImageLuma16(grey))).unwrap());
        assert_eq!(rgb.get_pixel(2, 2).0, [40, 40, 40]);
    }

    #[test]
    fn a_bomb_is_refused_by_its_header_although_no_pixel_follows() {
        let mut bytes = png(RgbImage::new(8, 8)).into_inner();
        // Width and height, then the header's checksum; the data is of 8x8.
        bytes[16..20].copy_from_slice(&25_000u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&24_920u32.to_be_bytes());
        let sum = flate2_crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        let refused = decode(Cursor::new(bytes)).unwrap_err();
        let detail = "25000x24920".to_owned();
        assert_eq!(refused, NoPixels { cause: Cause::TooManyPixels, detail });
    }

    fn flate2_crc(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }

    #[test]
    fn truncated_and_foreign_files_are_undecodable() {
        let whole = png(RgbImage::from_fn(64, 64, |x, y| Rgb([u8::try_from(x ^ y).unwrap(); 3])));
        let half = whole.get_ref()[..whole.get_ref().len() / 2].to_vec();
        for bytes in [half, b"<html>no picture</html>".to_vec(), Vec::new()] {
            assert_eq!(decode(Cursor::new(bytes)).unwrap_err().cause, Cause::Undecodable);
        }
    }

    #[test]
    fn the_short_side_is_128_whatever_the_picture_was() {
        assert_eq!(sides(1, 1), (128, 128));
        assert_eq!(sides(640, 480), (171, 128));
        assert_eq!(sides(48, 60), (128, 160));
        assert_eq!(sides(128, 1024), (128, 1024));
        assert_eq!(sides(4000, 3), (1024, 128));
        assert_eq!(sides(1, 60_000), (128, 1024));
    }

    #[test]
    fn a_long_strip_is_centred_on_white() {
        let small = shrink(&RgbImage::new(2048, 20));
        assert!(small.padded);
        assert_eq!(small.rgb.get_pixel(500, 64).0, [0, 0, 0]);
        assert_eq!(small.rgb.get_pixel(500, 0).0, [255, 255, 255]);
        assert_eq!(small.rgb.get_pixel(500, 127).0, [255, 255, 255]);
    }
}
