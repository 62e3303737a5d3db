//! How long a value is when it is written out, without writing it anywhere.

use std::fmt::{self, Write};

/// Counts what is written, and refuses more than there is room for.
struct Room(usize);

impl Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// Whether `value` takes at most `most` bytes, names of its fields included.
pub(super) fn fits(value: &impl fmt::Debug, most: usize) -> bool {
    write!(Room(most), "{value:?}").is_ok()
}
