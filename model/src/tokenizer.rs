//! CLIP's byte-pair tokenizer, equal to that of OpenCLIP (`open_clip_torch` 3.3), `ftfy` 6.3
//! included.
//!
//! A text is mended as `ftfy` does (`mend`), its references of HTML are read twice as Python does
//! (`entity`), its white space is collapsed and its case lowered (`clean`). It is then cut into
//! words (`split`), and each word merged by rank (`bpe`). A text of plain ASCII, as most
//! captions are, goes straight to the cutting; a word that the vocabulary holds is looked up whole.
//!
//! # Where ids differ from OpenCLIP's
//!
//! - Characters newer than Unicode 14, which OpenCLIP does not lower or compose under Python 3.11,
//!   or newer than Unicode 16, which the crate `regex` does not know for letters or digits though
//!   Python's `regex` may. `tests/golden/tokens_differ.json` pins some. Of 82,801 texts of all kinds
//!   (mojibake of ten encodings, references, controls, random characters) 261 differ, all for this
//!   reason, and 256 of those were drawn from all of Unicode; of 3,000 English captions and 4,000 in
//!   other languages none.
//! - A line of more than a million characters is mended as a whole, where `ftfy` cuts it, and a
//!   numeric reference of more than 4,300 digits is read, where Python raises an error.
//!
//! # Why `ftfy` is written anew
//!
//! The crate `plsfix` 0.1.8 is a port of `ftfy`, but it mends 4,645 (5.6 %) of the same 82,801
//! texts otherwise: it reads references within markup, keeps terminal escapes and the mojibake of
//! Windows-1257, and reads many numeric references otherwise. It also brings `encoding`, which
//! nobody maintains, and a second ICU. What a text needs is in `mend`, a few hundred lines.
//!
//! Invariants: a row starts with start-of-text; after the text's own ids stands end-of-text, and
//! zeros follow it. It is the only one, and so the first largest id of the row, unless the text
//! spells a special token out, which is read as one, as OpenCLIP does.

mod bpe;
mod clean;
mod entity;
mod mend;
mod split;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tch::Tensor;

use bpe::Bpe;
use mend::Mender;
use split::{Splitter, Word};

/// Size of the vocabulary, start-of-text and end-of-text included.
pub const VOCAB_SIZE: usize = 49_408;
const START_OF_TEXT: u32 = 49_406;
const END_OF_TEXT: u32 = 49_407;

/// Why the vocabulary could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("cannot read the CLIP vocabulary {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not CLIP's vocabulary bpe_simple_vocab_16e6.txt.gz: {why}", path.display())]
    Format { path: PathBuf, why: String },
}

/// Turns captions into token ids. Cheap to share between threads.
#[derive(Debug)]
pub struct Tokenizer {
    bpe: Bpe,
    mender: Mender,
    splitter: Splitter,
}

impl Tokenizer {
    /// Reads `bpe_simple_vocab_16e6.txt.gz`.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let failed = |source| TokenizerError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        GzDecoder::new(File::open(path).map_err(failed)?)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let bpe = Bpe::parse(&text)
            .map_err(|why| TokenizerError::Format { path: path.to_owned(), why })?;
        Ok(Self { bpe, mender: Mender::new(), splitter: Splitter::new() })
    }

    pub const fn vocab_size() -> usize {
        VOCAB_SIZE
    }

    /// Splits one text into token ids, without start and end.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.append_ids(text, usize::MAX, &mut ids);
        ids
    }

    /// Makes one row: start, ids, end, zeros; an over-long text keeps its end token.
    pub fn encode_row(&self, text: &str, context_length: usize) -> Vec<i64> {
        let mut ids = Vec::with_capacity(context_length + 1);
        ids.push(START_OF_TEXT);
        self.append_ids(text, context_length, &mut ids);
        ids.push(END_OF_TEXT);
        if ids.len() > context_length {
            ids.truncate(context_length);
            if let Some(last) = ids.last_mut() {
                *last = END_OF_TEXT;
            }
        }
        ids.resize(context_length, 0);
        ids.into_iter().map(i64::from).collect()
    }

    /// Appends the ids of `text` to `ids`, and no more words once those are `enough`.
    fn append_ids(&self, text: &str, enough: usize, ids: &mut Vec<u32>) {
        // Most captions need no mending, and finding that out is cheap.
        let text = if clean::is_plain(text) {
            text.to_ascii_lowercase()
        } else {
            clean::clean(&self.mender, text)
        };
        for word in self.splitter.words(&text) {
            if ids.len() >= enough {
                return;
            }
            match word {
                Word::StartOfText => ids.push(START_OF_TEXT),
                Word::EndOfText => ids.push(END_OF_TEXT),
                Word::Plain(word) => self.bpe.encode(word, ids),
            }
        }
    }

    /// Tokenizes many texts.
    ///
    /// # Shapes
    ///
    /// - returns `[texts, context]` i64
    pub fn encode_batch<S: AsRef<str>>(&self, texts: &[S], context_length: usize) -> Tensor {
        let rows = texts.iter().flat_map(|text| self.encode_row(text.as_ref(), context_length));
        let rows: Vec<i64> = rows.collect();
        let sizes = [texts.len(), context_length];
        let sizes = sizes.map(|size| i64::try_from(size).expect("a batch fits memory"));
        Tensor::from_slice(&rows).view(sizes)
    }
}

#[cfg(test)]
mod tests;
