//! Byte-pair merges over ids, built from the ranked list of merges.

use std::collections::HashMap;

/// Merges used of the file's list; the rest is cut off, as CLIP did.
const MERGES: usize = 49_152 - 256 - 2;

/// The merge table.
///
/// Ids `0..256` are bytes, `256..512` the same bytes at a word's end, then one id per merge in
/// order of rank: the id of a merge tells its rank.
#[derive(Debug)]
pub(super) struct Bpe {
    byte_ids: [u32; 256],
    merges: HashMap<(u32, u32), u32>,
}

impl Bpe {
    /// Parses the unpacked vocabulary: a heading, then one merge a line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let symbols = byte_symbols();
        let mut ids = HashMap::with_capacity(2 * MERGES);
        let mut byte_ids = [0; 256];
        for (id, (byte, symbol)) in (0_u32..).zip(&symbols) {
            byte_ids[usize::from(*byte)] = id;
            ids.insert(symbol.to_string(), id);
            ids.insert(format!("{symbol}</w>"), id + 256);
        }
        let mut merges = HashMap::with_capacity(MERGES);
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
            ids.insert(format!("{first}{second}"), id);
        }
        if merges.len() != MERGES {
            return Err(format!("{} merges where {MERGES} are due", merges.len()));
        }
        Ok(Self { byte_ids, merges })
    }

    /// Appends the ids of one word.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        let start = ids.len();
        ids.extend(word.bytes().map(|byte| self.byte_ids[usize::from(byte)]));
        if let Some(last) = ids.last_mut() {
            *last += 256;
        }
        // Words are short: looking through all pairs again after each merge beats a heap.
        loop {
            let pairs = ids[start..].windows(2);
            let merged = pairs.filter_map(|pair| self.merges.get(&(pair[0], pair[1]))).min();
            let Some(&merged) = merged else { return };
            let (mut read, mut write) = (start, start);
            while read < ids.len() {
                let pair = ids.get(read + 1).map(|&second| (ids[read], second));
                if pair.is_some_and(|pair| self.merges.get(&pair) == Some(&merged)) {
                    ids[write] = merged;
                    read += 2;
                } else {
                    ids[write] = ids[read];
                    read += 1;
                }
                write += 1;
            }
            ids.truncate(write);
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
