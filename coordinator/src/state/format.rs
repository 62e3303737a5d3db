//! Formats of the rows, and how older ones become this program's.
//!
//! A change to how a row is written counts [`FORMAT`] up and adds a step to [`migrate`]. The
//! leader applies it in transactions of at most [`super::MOST_KEYS`] keys and writes the new
//! number last, so every step must be harmless to rows it has changed already.

use super::{Rows, Write};

/// The format this program writes. A place of a newer one is refused.
pub(crate) const FORMAT: u32 = 1;

/// What must be written so that rows of format `from` become rows of [`FORMAT`].
pub(crate) fn migrate(from: u32, rows: &Rows) -> Vec<Write> {
    let mut writes = Vec::new();
    // Format 0 was before stores had an identity: the term lay among the rows.
    if from < 1 && rows.contains_key("term") {
        writes.push(Write::Delete { key: "term".to_owned() });
    }
    writes
}
