//! Byte-pair merges over ids, built from the ranked list of merges.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// Merges used of the file's list; the rest is cut off, as CLIP did.
const MERGES: usize = 49_152 - 256 - 2;

/// Later than every merge: what does not merge.
const NEVER: u32 = u32::MAX;

/// The merge table.
///
/// Ids `0..256` are bytes, `256..512` the same bytes at a word's end, then one id per merge in
/// order of rank: the id of a merge tells its rank.
#[derive(Debug)]
pub(super) struct Bpe {
    byte_ids: [u32; 256],
    merges: HashMap<(u32, u32), u32, FixedState>,
    /// Words that merge into one id, most words of a caption: looking them up saves the merging.
    whole_words: HashMap<Box<[u8]>, u32, FixedState>,
}

impl Bpe {
    /// Parses the unpacked vocabulary: a heading, then one merge a line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let symbols = byte_symbols();
        let mut ids = HashMap::with_capacity(2 * MERGES);
        let mut byte_ids = [0; 256];
        let mut bytes: Vec<Vec<u8>> = Vec::with_capacity(512 + MERGES);
        for (id, (byte, symbol)) in (0_u32..).zip(&symbols) {
            byte_ids[usize::from(*byte)] = id;
            ids.insert(symbol.to_string(), id);
            ids.insert(format!("{symbol}</w>"), id + 256);
        }
        for _ in 0..2 {
            bytes.extend(symbols.iter().map(|&(byte, _)| vec![byte]));
        }
        let mut merges = HashMap::with_capacity_and_hasher(MERGES, FixedState::default());
        let mut words: Vec<u32> = (256..512).collect();
        let lines = text.split('\n').skip(1).take(MERGES);
        for (id, line) in (512_u32..).zip(lines) {
            let known = |symbol: &str| {
                let found = ids.get(symbol).copied();
                found.ok_or_else(|| format!("merge {line:?} uses an unknown symbol"))
            };
            let Some((first, second)) = line.trim_end().split_once(' ') else {
                return Err(format!("line {} is no merge: {line:?}", id - 510));
            };
            let pair = (known(first)?, known(second)?);
            merges.insert(pair, id);
            bytes.push([&*bytes[pair.0 as usize], &*bytes[pair.1 as usize]].concat());
            if second.ends_with("</w>") {
                words.push(id);
            }
            ids.insert(format!("{first}{second}"), id);
        }
        if merges.len() != MERGES {
            return Err(format!("{} merges where {MERGES} are due", merges.len()));
        }
        let mut bpe = Self { byte_ids, merges, whole_words: HashMap::default() };
        // All words of CLIP's list are reached by their own bytes' merges; no list has to be so.
        for id in words {
            let word = &bytes[id as usize];
            let mut merged = Vec::new();
            bpe.merge(word, &mut merged);
            if merged == [id] {
                bpe.whole_words.insert(word.as_slice().into(), id);
            }
        }
        Ok(bpe)
    }

    /// Appends the ids of one word.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        match self.whole_words.get(word.as_bytes()) {
            Some(&id) => ids.push(id),
            None => self.merge(word.as_bytes(), ids),
        }
    }

    /// Appends the ids of one word, merging its bytes.
    ///
    /// A merge makes only pairs that rank after it, so taking the first of all pairs each time
    /// equals taking all occurrences of the best pair at once.
    pub(super) fn merge(&self, word: &[u8], ids: &mut Vec<u32>) {
        let start = ids.len();
        ids.extend(word.iter().map(|&byte| self.byte_ids[usize::from(byte)]));
        if let Some(last) = ids.last_mut() {
            *last += 256;
        }
        let rank = |ids: &[u32], first: usize| match ids[first..] {
            [first, second, ..] => self.merges.get(&(first, second)).copied().unwrap_or(NEVER),
            _ => NEVER,
        };
        // Words are short: looking through the ranks again after each merge beats a heap.
        let mut ranks: Vec<u32> = (start..ids.len()).map(|first| rank(ids, first)).collect();
        while let Some((place, &merged)) = ranks.iter().enumerate().min_by_key(|&(_, rank)| rank)
            && merged != NEVER
        {
            ids[start + place] = merged;
            ids.remove(start + place + 1);
            ranks.remove(place + 1);
            ranks[place] = rank(ids, start + place);
            if let Some(before) = place.checked_sub(1) {
                ranks[before] = rank(ids, start + before);
            }
        }
    }
}

/// Each byte with the printable character that stands for it, in CLIP's order of ids.
fn byte_symbols() -> Vec<(u8, char)> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut symbols: Vec<(u8, char)> =
        (0..=255_u8).filter(printable).map(|byte| (byte, char::from(byte))).collect();
    let others = (0..=255_u8).filter(|byte| !printable(byte));
    for (place, byte) in (256_u32..).zip(others) {
        symbols.push((byte, char::from_u32(place).expect("far below the surrogates")));
    }
    symbols
}
