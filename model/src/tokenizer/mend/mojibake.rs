//! UTF-8 that was read as something else, read again as it was meant.

use super::badness::badness;
use super::bytes;
use super::charmap::{Charmap, Kind, as_windows_1252};

use regex::Regex;

/// What a character may be of a misread character.
#[derive(Clone, Copy, Debug, Default)]
struct Clue {
    /// How many bytes the character has of which this is the first; 0 if it cannot be.
    bytes: usize,
    is_continuation: bool,
    /// Hardly ever stands for itself beside mojibake.
    is_strict: bool,
}

/// Finds and repairs mojibake.
#[derive(Debug)]
pub(super) struct Decoder {
    badness: Regex,
    charmaps: Vec<Charmap>,
    /// Sorted by character.
    clues: Vec<(char, Clue)>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        let charmaps = Charmap::all();
        let clues = clues(&charmaps);
        Self { badness: badness(), charmaps, clues }
    }

    /// Repairs again and again, since some text was misread more than once.
    pub(super) fn repair(&self, text: String) -> String {
        let mut text = text;
        while let Some(repaired) = self.repair_once(&text)
            && repaired != text
        {
            text = repaired;
        }
        text
    }

    fn repair_once(&self, text: &str) -> Option<String> {
        if text.is_ascii() || !self.badness.is_match(text) {
            return None;
        }
        if let Some(read) = self.charmaps.iter().find_map(|charmap| reread(charmap, text)) {
            return Some(read);
        }
        let repaired = self.repair_parts(text);
        if repaired != text {
            return Some(repaired);
        }
        Some(text.chars().map(as_windows_1252).collect())
    }

    /// Repairs the parts that look like misread characters and are bad by themselves.
    fn repair_parts(&self, text: &str) -> String {
        let chars: Vec<char> = text.chars().collect();
        let clues: Vec<Clue> = chars.iter().map(|&c| self.clue(c)).collect();
        let mut repaired = String::with_capacity(text.len());
        let mut at = 0;
        while at < chars.len() {
            // Amid a longer garble, a part repaired would only hide the rest.
            let is_amid = at > 0 && clues[at - 1].is_strict;
            let len = if is_amid { 0 } else { misread_run(&clues[at..]) };
            let part: String = chars[at..at + len.max(1)].iter().collect();
            if len > 0 && len < chars.len() && self.badness.is_match(&part) {
                repaired.push_str(&self.repair(part));
            } else {
                repaired.push_str(&part);
            }
            at += len.max(1);
        }
        repaired
    }

    fn clue(&self, c: char) -> Clue {
        match self.clues.binary_search_by_key(&c, |&(known, _)| known) {
            Ok(place) => self.clues[place].1,
            Err(_) => Clue::default(),
        }
    }
}

/// Takes `text` for UTF-8 that was read through `charmap`, if it can be that.
fn reread(charmap: &Charmap, text: &str) -> Option<String> {
    let mut bytes = charmap.encode(text)?;
    if charmap.kind != Kind::MacRoman {
        bytes = bytes::restore_no_break_spaces(bytes);
    }
    if charmap.kind == Kind::Sloppy {
        bytes = bytes::replace_lost_characters(&bytes);
    }
    bytes::decode(&bytes)
}

/// How many characters from the start on look like misread ones, one after the other.
fn misread_run(clues: &[Clue]) -> usize {
    let mut len = 0;
    while let Some(first) = clues.get(len)
        && first.bytes > 0
        && let Some(rest) = clues.get(len + 1..len + first.bytes)
        && rest.iter().all(|clue| clue.is_continuation)
    {
        len += first.bytes;
    }
    len
}

/// Marks which characters the bytes of UTF-8 become in Windows' encodings.
fn clues(charmaps: &[Charmap]) -> Vec<(char, Clue)> {
    type Mark = fn(&mut Clue);
    let mut marks: Vec<(char, Mark)> = vec![(' ', |clue| clue.is_continuation = true)];
    // Punctuation that also stands for itself beside mojibake.
    let lax =
        |c: char| matches!(c, '–' | '—' | '―' | '‘' | '’' | '‚' | '“' | '”' | '„' | '•' | '…');
    let mut continuation = |c: char| {
        marks.push((c, |clue| clue.is_continuation = true));
        if !lax(c) {
            marks.push((c, |clue| clue.is_strict = true));
        }
    };
    ('\u{80}'..='\u{bf}').for_each(&mut continuation);
    let windows = || charmaps.iter().filter(|charmap| charmap.kind == Kind::Sloppy);
    for charmap in windows() {
        charmap.high(0x80)[..0x40].iter().copied().for_each(&mut continuation);
    }
    for charmap in windows() {
        for &c in &charmap.high(0xc2)[..0x1e] {
            marks.push((c, |clue| clue.bytes = 2));
        }
        for &c in &charmap.high(0xe0)[..0x10] {
            marks.push((c, |clue| clue.bytes = 3));
        }
        // Emoji begin with 0xf0, tags with 0xf3; nothing in use with another.
        for c in [charmap.high(0xf0)[0], charmap.high(0xf3)[0]] {
            marks.push((c, |clue| clue.bytes = 4));
        }
    }
    marks.sort_by_key(|&(c, _)| c);
    let mut clues: Vec<(char, Clue)> = Vec::new();
    for (c, mark) in marks {
        if clues.last().is_none_or(|&(last, _)| last != c) {
            clues.push((c, Clue::default()));
        }
        if let Some((_, clue)) = clues.last_mut() {
            mark(clue);
        }
    }
    clues
}
