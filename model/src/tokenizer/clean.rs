//! What OpenCLIP does to a text before it splits it.

use std::borrow::Cow;

use super::entity::unescape;
use super::mend::Mender;

/// Whether cleaning can do no more to a text than to collapse its white space and lower its case.
///
/// Every repair begins with a character beyond ASCII, a control character or a reference, and a
/// reference with a letter or a hash after its `&`.
pub(super) fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins_reference = |at: usize| {
        bytes.get(at + 1).is_some_and(|&next| next == b'#' || next.is_ascii_alphanumeric())
    };
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'&' => !begins_reference(at),
        b' '..=b'~' | b'\t' | b'\n' | b'\r' => true,
        _ => false,
    })
}

/// Mends, unescapes twice, collapses white space and lower-cases.
pub(super) fn clean(mender: &Mender, text: &str) -> String {
    let text = mender.mend(text);
    let once = unescape(&text);
    let twice = match unescape(&once) {
        Cow::Borrowed(_) => once,
        Cow::Owned(twice) => twice.into(),
    };
    let mut cleaned = String::with_capacity(twice.len());
    for word in twice.split_whitespace() {
        if !cleaned.is_empty() {
            cleaned.push(' ');
        }
        cleaned.push_str(word);
    }
    cleaned.to_lowercase()
}
