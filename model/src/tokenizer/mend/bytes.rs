//! UTF-8 that lost a byte on its way, found again in the bytes of a misread text.

/// U+FFFD in UTF-8.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Puts back no-break spaces, byte 0xa0, that became spaces inside a character.
pub(super) fn restore_no_break_spaces(bytes: Vec<u8>) -> Vec<u8> {
    if !(0..bytes.len()).any(|at| spaced_character(&bytes[at..]).is_some()) {
        return bytes;
    }
    let bytes = part_lone_a_grave(&bytes);
    replace(&bytes, spaced_character, |found, out| {
        out.extend(found.iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }));
    })
}

/// Puts U+FFFD where a character lost bytes for good.
pub(super) fn replace_lost_characters(bytes: &[u8]) -> Vec<u8> {
    replace(bytes, lost_character, |_, out| out.extend(REPLACEMENT))
}

/// Decodes UTF-8, surrogate pairs written as two characters (CESU-8), and Java's long zero.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((start, len, c)) = (0..rest.len()).find_map(|at| {
        let (len, c) = unusual_character(&rest[at..])?;
        Some((at, len, c))
    }) {
        text.push_str(str::from_utf8(&rest[..start]).ok()?);
        text.push(c);
        rest = &rest[start + len..];
    }
    text.push_str(str::from_utf8(rest).ok()?);
    Some(text)
}

/// Copies `bytes`, with every part whose length `find` tells written by `write` instead.
fn replace(
    bytes: &[u8],
    find: impl Fn(&[u8]) -> Option<usize>,
    write: impl Fn(&[u8], &mut Vec<u8>),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match find(&bytes[at..]) {
            Some(len) => {
                write(&bytes[at..at + len], &mut out);
                at += len;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// Gives a lone à its space back, as French writes it; Portuguese joins it to some words.
fn part_lone_a_grave(bytes: &[u8]) -> Vec<u8> {
    const JOINED: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let lone = |rest: &[u8]| {
        let after = rest.strip_prefix(b"\xc3 ")?;
        (!JOINED.iter().any(|word| after.starts_with(word))).then_some(2)
    };
    replace(bytes, lone, |_, out| out.extend(b"\xc3\xa0 "))
}

const fn is_continuation(byte: u8) -> bool {
    matches!(byte, 0x80..=0xbf)
}

/// The length of a character in which a space stands for byte 0xa0.
///
/// Only where the repair makes a likely character: not all first bytes count.
fn spaced_character(bytes: &[u8]) -> Option<usize> {
    let second = |byte: u8| is_continuation(byte) && !matches!(byte, 0x85 | 0xa0);
    match *bytes {
        [0xc2 | 0xc3 | 0xc5 | 0xce | 0xd0 | 0xd9, b' ', ..] => Some(2),
        [0xe2 | 0xe3, b' ', third, ..] if second(third) => Some(3),
        [0xe0..=0xe3, next, b' ', ..] if second(next) => Some(3),
        [0xf0, b' ', third, fourth, ..] if is_continuation(third) && is_continuation(fourth) => {
            Some(4)
        }
        [0xf0, next, b' ', fourth, ..] if is_continuation(next) && is_continuation(fourth) => {
            Some(4)
        }
        [0xf0, next, third, b' ', ..] if is_continuation(next) && is_continuation(third) => Some(4),
        _ => None,
    }
}

/// The length of a character of which bytes became 0x1a or, one at most, a question mark.
fn lost_character(bytes: &[u8]) -> Option<usize> {
    let lost = |byte: u8| matches!(byte, 0x1a | b'?');
    let kept = |byte: u8| byte == 0x1a || is_continuation(byte);
    let either = |byte: u8| lost(byte) || is_continuation(byte);
    match *bytes {
        [0xc2..=0xdf, 0x1a, ..] | [0xc2 | 0xc3, b'?', ..] => Some(2),
        [0xed, 0xa0..=0xaf, a, 0xed, 0xb0..=0xbf, b, ..]
            if lost(a) && either(b) || either(a) && lost(b) =>
        {
            Some(6)
        }
        [0xe0..=0xef, a, b, ..] if lost(a) && kept(b) || kept(a) && lost(b) => Some(3),
        [0xf0..=0xf4, a, b, c, ..]
            if lost(a) && kept(b) && kept(c)
                || kept(a) && lost(b) && kept(c)
                || kept(a) && kept(b) && lost(c) =>
        {
            Some(4)
        }
        [0x1a, ..] => Some(1),
        _ => None,
    }
}

/// A character that UTF-8 writes otherwise, with its length.
///
/// `ftfy` lets a line end stand for the last byte of either form; nobody meant that, but it is so.
fn unusual_character(bytes: &[u8]) -> Option<(usize, char)> {
    match *bytes {
        [0xc0, 0x80, ..] | [0xc0, b'\n'] => Some((2, '\0')),
        [0xed, a @ 0xa0..=0xaf, b, 0xed, c @ 0xb0..=0xbf, d, ..]
            if is_continuation(b) && (is_continuation(d) || d == b'\n' && bytes.len() == 6) =>
        {
            let bits = [(a, 0x0f, 16), (b, 0x3f, 10), (c, 0x0f, 6), (d, 0x3f, 0)];
            let offset: u32 =
                bits.iter().map(|&(byte, mask, by)| u32::from(byte & mask) << by).sum();
            Some((6, char::from_u32(0x1_0000 + offset)?))
        }
        _ => None,
    }
}
