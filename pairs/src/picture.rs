//! What a picture's bytes tell without decoding it: format, size, whether it is all there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use clade_pictures as preprocess;

use super::cause::Cause;

/// The formats that pairs are read and written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Jpeg,
    Png,
    Webp,
}

impl Format {
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }

    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension {
            "jpg" => Some(Self::Jpeg),
            "png" => Some(Self::Png),
            "webp" => Some(Self::Webp),
            _ => None,
        }
    }

    /// Tells the format by the first bytes; names lie.
    fn of(bytes: &[u8]) -> Result<Self, Cause> {
        const FOREIGN: [&[u8]; 8] =
            [b"GIF8", b"BM", b"II*\0", b"MM\0*", b"<svg", b"<?xml", b"8BPS", b"\0\0\x01\0"];
        if bytes.starts_with(b"\xff\xd8\xff") {
            Ok(Self::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Ok(Self::Png)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Ok(Self::Webp)
        } else if FOREIGN.iter().any(|magic| bytes.starts_with(magic))
            || bytes.get(4..8) == Some(b"ftyp")
        {
            Err(Cause::UnsupportedFormat)
        } else {
            Err(Cause::UnreadableHeader)
        }
    }

    /// Whether the bytes reach to the picture's end: cheap, without decoding.
    fn is_whole(self, bytes: &[u8]) -> bool {
        match self {
            Self::Jpeg => scan_data(bytes)
                .is_some_and(|data| data.windows(2).rev().any(|pair| pair == [0xff, 0xd9])),
            Self::Png => bytes.windows(8).rev().any(|chunk| chunk == b"IEND\xae\x42\x60\x82"),
            Self::Webp => bytes.get(4..8).is_some_and(|size| {
                let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]);
                u64::from(size) + 8 <= bytes.len() as u64
            }),
        }
    }
}

/// The bytes from a JPEG's first scan on. Previews embedded before it have end markers of their own.
fn scan_data(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 2;
    loop {
        match (*bytes.get(at)?, *bytes.get(at + 1)?) {
            (0xff, 0xff) => at += 1,
            (0xff, 0xda) => return bytes.get(at..),
            (0xff, _) => {
                let length = [*bytes.get(at + 2)?, *bytes.get(at + 3)?];
                at += 2 + usize::from(u16::from_be_bytes(length));
            }
            _ => return None,
        }
    }
}

/// What the index keeps of a usable picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub format: Format,
    pub width: u32,
    pub height: u32,
}

/// Judges a picture by its header and its end.
pub fn judge(bytes: &[u8], max_pixels: u64) -> Result<Header, Cause> {
    let format = Format::of(bytes)?;
    // Decoders are other people's code and have been known to panic on hostile bytes.
    let probed = catch_unwind(AssertUnwindSafe(|| preprocess::probe(bytes)));
    let (width, height) = match probed {
        Ok(Ok(size)) => size,
        Ok(Err(_)) if !format.is_whole(bytes) => return Err(Cause::TruncatedImage),
        Ok(Err(_)) | Err(_) => return Err(Cause::UnreadableHeader),
    };
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Cause::TooManyPixels);
    }
    if !format.is_whole(bytes) {
        return Err(Cause::TruncatedImage);
    }
    Ok(Header { format, width, height })
}
