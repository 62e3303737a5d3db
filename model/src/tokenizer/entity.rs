//! HTML's character references, read as Python's `html.unescape` and as `ftfy` read them.
//!
//! Names are those of HTML 5, which `htmlize` holds and reads by HTML's own rules, names without a
//! semicolon included. Numbers are read here: Python drops characters that HTML would keep.

use std::borrow::Cow;

use super::mend::as_windows_1252;

/// `ftfy` takes no longer name for a reference.
const LONGEST_NAME: usize = 24;

/// Replaces every reference as `html.unescape` does.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("&#") {
        out.push_str(&htmlize::unescape(&rest[..start]));
        let (c, len) = number(&rest[start + 2..]);
        match len {
            0 => out.push_str("&#"),
            _ => out.extend(c),
        }
        rest = &rest[start + 2 + len..];
    }
    out.push_str(&htmlize::unescape(rest));
    Cow::Owned(out)
}

/// Replaces only what is surely a reference, as `ftfy` does: it ends in a semicolon.
pub(super) fn unescape_closed(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let len = closed_reference(rest);
        match len.and_then(|len| meaning(&rest[..len])) {
            Some(meaning) => out.push_str(&meaning),
            None => out.push_str(&rest[..len.unwrap_or(1)]),
        }
        rest = &rest[len.unwrap_or(1)..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The length of what has the form of a reference at the start of `text`, which is an `&`.
fn closed_reference(text: &str) -> Option<usize> {
    let name = &text[1..];
    let name = name.strip_prefix('#').unwrap_or(name);
    let len = name.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let is_closed = (1..=LONGEST_NAME).contains(&len) && name.as_bytes().get(len) == Some(&b';');
    is_closed.then_some(text.len() - name.len() + len + 1)
}

/// What one reference stands for; some that were put into capitals as a whole are known too.
fn meaning(reference: &str) -> Option<String> {
    let unescaped = unescape(reference);
    if is_whole(reference, &unescaped) {
        return Some(unescaped.into_owned());
    }
    if unescaped != reference || reference.to_ascii_uppercase() != reference {
        return None;
    }
    let lower = reference.to_ascii_lowercase();
    let unescaped = htmlize::unescape(&lower);
    is_whole(&lower, &unescaped).then(|| unescaped.to_uppercase())
}

/// Whether all of a reference was read, its semicolon too.
fn is_whole(reference: &str, unescaped: &str) -> bool {
    !unescaped.contains(';') || reference == "&semi;"
}

/// Reads a number after `&#`: what it stands for, and its length, 0 if it is none.
fn number(text: &str) -> (Option<char>, usize) {
    let digits = text.strip_prefix(['x', 'X']).unwrap_or(text);
    let radix = if digits.len() < text.len() { 16 } else { 10 };
    let count = digits.bytes().take_while(|&byte| char::from(byte).is_digit(radix)).count();
    if count == 0 {
        return (None, 0);
    }
    let value = digits[..count].chars().filter_map(|digit| digit.to_digit(radix));
    let value = value.fold(0_u32, |value, digit| value.saturating_mul(radix).saturating_add(digit));
    let is_closed = digits.as_bytes().get(count) == Some(&b';');
    (character(value), text.len() - digits.len() + count + usize::from(is_closed))
}

/// What a number stands for; nothing, if it is of no character.
fn character(value: u32) -> Option<char> {
    match value {
        0 => Some('\u{fffd}'),
        0x0d => Some('\r'),
        0x80..=0x9f => char::from_u32(value).map(as_windows_1252),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        _ if value <= 0x10_ffff && value & 0xfffe == 0xfffe => None,
        _ => Some(char::from_u32(value).unwrap_or('\u{fffd}')),
    }
}
