//! The repairs that `ftfy.fix_text` makes before OpenCLIP looks at a text.
//!
//! Each line is mended until nothing changes: references of HTML, mojibake, control characters of
//! Windows, ligatures, character widths, curly quotes, line ends, terminal escapes, control
//! characters, and at last Unicode's composed form.

mod badness;
mod bytes;
mod charmap;
mod mojibake;

use std::iter;

use icu_normalizer::ComposingNormalizerBorrowed;
use regex::Regex;

use super::entity::unescape_closed;
use mojibake::Decoder;

pub(super) use charmap::as_windows_1252;

/// Colours and movements as terminals know them; digits of any script count, as in Python.
const TERMINAL_ESCAPE: &str = r"\x1b\[[\d;]*[a-zA-Z]";

/// Mends texts as `ftfy` does. It keeps nothing of them.
#[derive(Debug)]
pub(super) struct Mender {
    decoder: Decoder,
    terminal_escape: Regex,
}

impl Mender {
    pub(super) fn new() -> Self {
        let terminal_escape = Regex::new(TERMINAL_ESCAPE).expect("the pattern is a constant");
        Self { decoder: Decoder::new(), terminal_escape }
    }

    /// Mends a text line by line.
    pub(super) fn mend(&self, text: &str) -> String {
        let mut is_markup = false;
        let lines = text.split_inclusive('\n').map(|line| {
            // From the first `<` on the text is taken for markup, in which references are meant.
            is_markup |= line.contains('<');
            self.mend_line(line, !is_markup)
        });
        lines.collect()
    }

    fn mend_line(&self, line: &str, unescapes: bool) -> String {
        let mut line = line.to_owned();
        loop {
            let mended = self.mend_once(&line, unescapes);
            if mended == line {
                return line;
            }
            line = mended;
        }
    }

    fn mend_once(&self, line: &str, unescapes: bool) -> String {
        let unescaped = if unescapes { unescape_closed(line) } else { line.into() };
        let mut text = straighten(&self.decoder.repair(unescaped.into_owned()));
        if text.contains('\x1b') {
            text = self.terminal_escape.replace_all(&text, "").into_owned();
        }
        text.retain(|c| !is_needless(c));
        const { ComposingNormalizerBorrowed::new_nfc() }.normalize(&text).into_owned()
    }
}

/// Gives every character its usual form.
fn straighten(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match as_windows_1252(c) {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push('\n');
            }
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => out.push('\''),
            '\u{201c}'..='\u{201f}' => out.push('"'),
            '\u{3000}' => out.push(' '),
            c @ '\u{ff01}'..='\u{ffef}' => {
                let usual = const { ComposingNormalizerBorrowed::new_nfkc() };
                out.extend(usual.normalize_iter(iter::once(c)));
            }
            c => match ligature(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    out
}

/// The letters that a ligature or digraph joins.
const fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Whether a character controls something that a caption does not have.
const fn is_needless(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f'
            | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}'
    )
}
