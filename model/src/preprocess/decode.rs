//! Bytes to a picture, or the reason why not.

use std::io::Cursor;

use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{RgbImage, jpeg};

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
}

/// Reads width and height from the header.
pub fn probe(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let size = open(bytes)?.into_dimensions().map_err(unreadable)?;
    if size.0 == 0 || size.1 == 0 { Err(DecodeError::Empty) } else { Ok(size) }
}

/// Decodes a picture of at most `max_pixels` pixels.
pub fn decode_rgb(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, DecodeError> {
    let (width, height) = probe(bytes)?;
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(DecodeError::TooManyPixels { width, height, limit: max_pixels });
    }
    let reader = open(bytes)?;
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg::is_complete(bytes) {
        return Err(DecodeError::Unreadable("the JPEG ends before its end marker".to_owned()));
    }
    let decoder = reader.into_decoder().map_err(unreadable)?;
    let has_alpha = has_alpha(decoder.color_type());
    let picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    let data = if has_alpha { on_white(&picture) } else { picture.into_rgb8().into_raw() };
    Ok(RgbImage { width, height, data })
}

fn open(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let format = image::guess_format(bytes).map_err(|_| DecodeError::UnsupportedFormat)?;
    if !matches!(format, ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP) {
        return Err(DecodeError::UnsupportedFormat);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The caller's limit on pixels bounds memory; the crate's own would refuse large sound pictures.
    reader.no_limits();
    Ok(reader)
}

fn unreadable(error: image::ImageError) -> DecodeError {
    DecodeError::Unreadable(error.to_string())
}

fn has_alpha(color: ColorType) -> bool {
    color.has_alpha()
}

fn on_white(picture: &DynamicImage) -> Vec<u8> {
    let rgba = picture.to_rgba8();
    let mut data = Vec::with_capacity(rgba.as_raw().len() / 4 * 3);
    for pixel in rgba.as_raw().chunks_exact(4) {
        let alpha = u16::from(pixel[3]);
        for &channel in &pixel[..3] {
            let mixed = (u16::from(channel) * alpha + 255 * (255 - alpha) + 127) / 255;
            data.push(u8::try_from(mixed).expect("a mean of two bytes is a byte"));
        }
    }
    data
}
