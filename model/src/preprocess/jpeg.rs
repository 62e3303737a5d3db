//! JPEG as Pillow reads it, except that no file without its end marker is a picture.

use super::turbo::{Colours, Jpeg};
use super::{DecodeError, RgbImage};

/// Reads width and height from the header.
pub(super) fn probe(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let jpeg = Jpeg::open(bytes).map_err(DecodeError::Unreadable)?;
    Ok((jpeg.width, jpeg.height))
}

/// Decodes a picture of at most `max_pixels` pixels.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, DecodeError> {
    let jpeg = Jpeg::open(bytes).map_err(DecodeError::Unreadable)?;
    let (width, height, colours) = (jpeg.width, jpeg.height, jpeg.colours);
    DecodeError::check_size(width, height, max_pixels)?;
    if !is_complete(bytes) {
        return Err(DecodeError::Unreadable("the JPEG ends before its end marker".to_owned()));
    }
    let pixels = jpeg.decode().map_err(DecodeError::Unreadable)?;
    let data = match colours {
        Colours::Rgb => pixels,
        Colours::Cmyk => without_inks(pixels),
    };
    Ok(RgbImage { width, height, data })
}

/// Four inks to three colours by Pillow's formula, in place.
///
/// Pillow takes every JPEG of four inks for one of Adobe's, which are stored inverted: 255 is no ink.
fn without_inks(mut pixels: Vec<u8>) -> Vec<u8> {
    let count = pixels.len() / 4;
    for at in 0..count {
        let paper = u16::from(pixels[4 * at + 3]);
        for channel in 0..3 {
            let ink = 255 - u16::from(pixels[4 * at + channel]);
            let light = paper - rounded_share(ink * paper);
            pixels[3 * at + channel] = u8::try_from(light).expect("at most 255");
        }
    }
    pixels.truncate(3 * count);
    pixels
}

/// A product of two bytes over 255, rounded: Pillow's `MULDIV255`.
fn rounded_share(product: u16) -> u16 {
    let raised = u32::from(product) + 128;
    u16::try_from(((raised >> 8) + raised) >> 8).expect("at most 255")
}

/// Walks the markers up to the end-of-image marker; false if the data end first.
///
/// A search for the marker's bytes would not do: an embedded preview has one too.
fn is_complete(bytes: &[u8]) -> bool {
    end_of_image(bytes).is_some()
}

fn end_of_image(bytes: &[u8]) -> Option<usize> {
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2; // past the start-of-image marker
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        let marker = *bytes.get(at + 1)?;
        match marker {
            0xd9 => return Some(at),
            0xff => at += 1,
            // Stuffed bytes and restarts inside a scan, and markers without a length.
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            _ => {
                let length = u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]);
                at += 2 + usize::from(length).max(2);
                if marker == START_OF_SCAN && at >= bytes.len() {
                    return None;
                }
            }
        }
    }
}
