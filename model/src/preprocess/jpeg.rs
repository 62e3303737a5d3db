//! Tells a whole JPEG from a truncated one, which decoders fill up with grey and call sound.

/// Walks the markers up to the end-of-image marker; false if the data end first.
///
/// A search for the marker's bytes would not do: an embedded preview has one too.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
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
