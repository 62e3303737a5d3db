//! Bytes to a picture, or the reason why not.

use std::io::Cursor;

use image::codecs::{png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageDecoder, ImageError, Limits};

use super::{RgbImage, jpeg};

/// What a PNG may hold beside its pixels, such as a colour profile, once inflated.
const MOST_BYTES_BESIDE_PIXELS: u64 = 256 << 20;

/// Why a picture cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the picture is empty")]
    Empty,
    #[error("the picture is not JPEG, PNG or WebP")]
    UnsupportedFormat,
    #[error("the picture is {width}x{height}: more than {limit} pixels")]
    TooManyPixels { width: u32, height: u32, limit: u64 },
    #[error("the picture cannot be decoded: {0}")]
    Unreadable(String),
}

impl DecodeError {
    /// A word for counting by cause; one of a closed set.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::UnsupportedFormat => "unsupported-format",
            Self::TooManyPixels { .. } => "too-many-pixels",
            Self::Unreadable(_) => "unreadable",
        }
    }

    pub(super) fn check_size(width: u32, height: u32, limit: u64) -> Result<(), Self> {
        if u64::from(width) * u64::from(height) > limit {
            return Err(Self::TooManyPixels { width, height, limit });
        }
        if width == 0 || height == 0 { Err(Self::Empty) } else { Ok(()) }
    }
}

/// Reads width and height from the header.
pub fn probe(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let (width, height) = match Format::of(bytes)? {
        Format::Jpeg => jpeg::probe(bytes)?,
        Format::Png => png(bytes)?.dimensions(),
        Format::WebP => webp(bytes)?.dimensions(),
    };
    DecodeError::check_size(width, height, u64::MAX)?;
    Ok((width, height))
}

/// Decodes a picture of at most `max_pixels` pixels.
pub fn decode_rgb(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, DecodeError> {
    match Format::of(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, max_pixels),
        Format::Png => decode(png(bytes)?, max_pixels),
        Format::WebP => decode(webp(bytes)?, max_pixels),
    }
}

fn decode(decoder: impl ImageDecoder, max_pixels: u64) -> Result<RgbImage, DecodeError> {
    let (width, height) = decoder.dimensions();
    DecodeError::check_size(width, height, max_pixels)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    // Drops alpha and leaves the colours below it, as Pillow does.
    Ok(RgbImage { width, height, data: picture.into_rgb8().into_raw() })
}

pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
}

impl Format {
    pub(super) fn of(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes {
            [] => Err(DecodeError::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            _ => Err(DecodeError::UnsupportedFormat),
        }
    }
}

fn png(bytes: &[u8]) -> Result<PngDecoder<Cursor<&[u8]>>, DecodeError> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_BYTES_BESIDE_PIXELS);
    PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(unreadable)
}

fn webp(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, DecodeError> {
    WebPDecoder::new(Cursor::new(bytes)).map_err(unreadable)
}

fn unreadable(error: ImageError) -> DecodeError {
    DecodeError::Unreadable(error.to_string())
}
