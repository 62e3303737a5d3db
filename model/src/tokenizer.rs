//! CLIP's byte-pair tokenizer, equal to OpenCLIP's `SimpleTokenizer`.
//!
//! TODO docs
//!
//! Invariants: a row starts with start-of-text and holds exactly one end-of-text, which is its
//! largest id; zeros follow it.

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
