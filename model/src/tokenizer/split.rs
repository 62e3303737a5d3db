//! Cuts a text into the words that are tokenized one by one.
//!
//! Equal to OpenCLIP's pattern: the two special tokens, English contractions, runs of letters,
//! single digits, and runs of anything else but white space; the first that fits wins.

use regex::Regex;

/// One piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    StartOfText,
    EndOfText,
    Plain(&'a str),
}

/// Cuts lower-case texts.
#[derive(Debug)]
pub(super) struct Splitter {
    letters: CharSet,
    numbers: CharSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Self { letters: CharSet::new(r"\p{L}+"), numbers: CharSet::new(r"\p{N}+") }
    }

    /// The words of `text`, which is in lower case; white space between them is dropped.
    pub(super) fn words<'a>(&self, text: &'a str) -> impl Iterator<Item = Word<'a>> {
        let mut rest = text;
        std::iter::from_fn(move || {
            loop {
                let (class, len) = self.first(rest)?;
                if class != Class::Space {
                    break;
                }
                rest = &rest[len..];
            }
            let (word, len) = self.word(rest);
            rest = &rest[len..];
            Some(word)
        })
    }

    /// The word at the start of `text`, which is not empty and does not start with white space.
    fn word<'a>(&self, text: &'a str) -> (Word<'a>, usize) {
        if text.starts_with('<') {
            if let Some(len) = folded_prefix(text, "<start_of_text>") {
                let is_exact = len == "<start_of_text>".len();
                let word = if is_exact { Word::StartOfText } else { Word::Plain(&text[..len]) };
                return (word, len);
            }
            if text.starts_with("<end_of_text>") {
                return (Word::EndOfText, "<end_of_text>".len());
            }
        }
        let len = contraction(text).unwrap_or_else(|| self.run(text));
        (Word::Plain(&text[..len]), len)
    }

    /// The length of the run at the start of `text`: letters, one digit, or others.
    fn run(&self, text: &str) -> usize {
        let mut end = 0;
        let mut class = None;
        while let Some((next, len)) = self.first(&text[end..]) {
            if class.is_some_and(|class| class != next) {
                break;
            }
            class = Some(next);
            end += len;
            if next == Class::Number {
                break;
            }
        }
        end
    }

    /// The class and the length of the first character.
    fn first(&self, text: &str) -> Option<(Class, usize)> {
        let byte = *text.as_bytes().first()?;
        if byte.is_ascii() {
            let class = match byte {
                b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
                b'0'..=b'9' => Class::Number,
                b' ' | b'\t'..=b'\r' => Class::Space,
                _ => Class::Other,
            };
            return Some((class, 1));
        }
        let c = text.chars().next()?;
        let class = match c {
            c if self.letters.contains(c) => Class::Letter,
            c if self.numbers.contains(c) => Class::Number,
            // An iota to write below: a letter when case is ignored, though none by itself, so that
            // OpenCLIP's pattern takes it for neither.
            '\u{345}' => Class::Space,
            c if c.is_whitespace() => Class::Space,
            _ => Class::Other,
        };
        Some((class, c.len_utf8()))
    }
}

/// The length of `'s` and its like at the start of `text`.
fn contraction(text: &str) -> Option<usize> {
    if !text.starts_with('\'') {
        return None;
    }
    ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].iter().find_map(|it| folded_prefix(text, it))
}

/// The length of `prefix` at the start of `text`.
///
/// OpenCLIP's pattern ignores case, and the long s is an s then, though it is in lower case.
fn folded_prefix(text: &str, prefix: &str) -> Option<usize> {
    let mut rest = text;
    for c in prefix.chars() {
        let found = rest.strip_prefix(c);
        rest = found.or_else(|| if c == 's' { rest.strip_prefix('ſ') } else { None })?;
    }
    Some(text.len() - rest.len())
}

/// A set of characters, one bit each.
#[derive(Debug)]
struct CharSet(Vec<u64>);

impl CharSet {
    /// All characters that `pattern` matches.
    fn new(pattern: &str) -> Self {
        let all: String = ('\0'..=char::MAX).collect();
        let pattern = Regex::new(pattern).expect("the patterns are constants");
        let mut bits = vec![0; 0x11_0000 / 64];
        for c in pattern.find_iter(&all).flat_map(|found| found.as_str().chars()) {
            bits[c as usize / 64] |= 1 << (c as usize % 64);
        }
        Self(bits)
    }

    fn contains(&self, c: char) -> bool {
        self.0[c as usize / 64] & 1 << (c as usize % 64) != 0
    }
}
