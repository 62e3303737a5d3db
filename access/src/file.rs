//! Small files: read whole but not without end, and written for their owner's eyes only.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Reads a file of at most `largest` bytes.
pub(crate) fn read_small(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if read as u64 > largest {
        let why = format!("it is larger than {largest} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}
