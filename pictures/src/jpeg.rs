//! JPEG as Pillow reads it, except that no file without its end marker is a picture.

use super::turbo::{Colours, Jpeg, Pixel, Shrink};
use super::{DecodeError, RgbImage};

/// Reads width and height from the header.
pub(super) fn probe(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let jpeg = Jpeg::open(bytes).map_err(DecodeError::Unreadable)?;
    Ok((jpeg.width, jpeg.height))
}

/// Opens a file that is all there, of at most `max_pixels` pixels.
pub(super) fn open(bytes: &[u8], max_pixels: u64) -> Result<Jpeg<'_>, DecodeError> {
    let jpeg = Jpeg::open(bytes).map_err(DecodeError::Unreadable)?;
    DecodeError::check_size(jpeg.width, jpeg.height, max_pixels)?;
    if !is_complete(bytes) {
        return Err(DecodeError::Unreadable("the JPEG ends before its end marker".to_owned()));
    }
    Ok(jpeg)
}

/// Decodes a picture of at most `max_pixels` pixels.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, DecodeError> {
    let jpeg = open(bytes, max_pixels)?;
    let (width, height, colours) = (jpeg.width, jpeg.height, jpeg.colours);
    let mut data = Vec::new();
    jpeg.decode(Pixel::Packed, Shrink::Not, &mut data).map_err(DecodeError::Unreadable)?;
    if colours == Colours::Cmyk {
        mix_inks::<3>(&mut data);
        data.truncate(data.len() / 4 * 3);
    }
    Ok(RgbImage { width, height, data })
}

/// Decodes to the first bytes of a buffer: red, green, blue and one to pad with. It grows if it must.
pub(super) fn decode_padded(
    jpeg: Jpeg<'_>,
    shrink: Shrink,
    buffer: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let colours = jpeg.colours;
    let length = jpeg.decode(Pixel::Padded, shrink, buffer).map_err(DecodeError::Unreadable)?;
    if colours == Colours::Cmyk {
        mix_inks::<4>(&mut buffer[..length]);
    }
    Ok(())
}

/// Four inks to three colours by Pillow's formula, in place, each pixel's `STEP` bytes from the last.
///
/// Pillow takes every JPEG of four inks for one of Adobe's, which are stored inverted: 255 is no ink.
fn mix_inks<const STEP: usize>(pixels: &mut [u8]) {
    for at in 0..pixels.len() / 4 {
        let paper = u16::from(pixels[4 * at + 3]);
        for channel in 0..3 {
            let ink = 255 - u16::from(pixels[4 * at + channel]);
            let light = paper - rounded_share(ink * paper);
            pixels[STEP * at + channel] = u8::try_from(light).expect("at most 255");
        }
    }
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
        at += first_mark(bytes.get(at..)?)?;
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

/// Where the first byte of 255 is: one in some hundreds, so the others are passed by the block.
fn first_mark(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 32;
    let has_none = |block: &&[u8]| !block.iter().fold(false, |any, &byte| any | (byte == 0xff));
    let passed = BLOCK * bytes.chunks_exact(BLOCK).take_while(has_none).count();
    Some(passed + bytes[passed..].iter().position(|&byte| byte == 0xff)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mark_is_found_wherever_it_lies() {
        let mut bytes = [0xfe; 100];
        assert_eq!(first_mark(&bytes), None);
        for at in (0..bytes.len()).rev() {
            bytes[at] = 0xff;
            assert_eq!(first_mark(&bytes), Some(at));
        }
    }
}
