//! CLIP's byte-pair tokenizer, equal to OpenCLIP's `SimpleTokenizer` on ordinary text.
//!
//! Text is HTML-unescaped (twice, as there), its white space collapsed, lower-cased, split into
//! letters, digits and other runs, and merged by rank. What is not done is `ftfy`'s repair of
//! mojibake: such text yields tokens, but others than OpenCLIP's.
//!
//! Invariants: a row starts with start-of-text and holds exactly one end-of-text, which is its
//! largest id; zeros follow it.

mod bpe;
mod clean;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use regex::Regex;
use tch::Tensor;

use bpe::Bpe;

/// Size of the vocabulary, start-of-text and end-of-text included.
pub const VOCAB_SIZE: usize = 49_408;
const START_OF_TEXT: u32 = 49_406;
const END_OF_TEXT: u32 = 49_407;

/// The splits of OpenCLIP's pattern; text is lower-cased before.
const PATTERN: &str =
    r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";

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
    pattern: Regex,
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
        let pattern = Regex::new(PATTERN).expect("the pattern is a constant and tested");
        Ok(Self { bpe, pattern })
    }

    pub const fn vocab_size() -> usize {
        VOCAB_SIZE
    }

    /// Splits one text into token ids, without start and end.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let text = clean::clean(text);
        let mut ids = Vec::new();
        for word in self.pattern.find_iter(&text) {
            match word.as_str() {
                "<start_of_text>" => ids.push(START_OF_TEXT),
                "<end_of_text>" => ids.push(END_OF_TEXT),
                word => self.bpe.encode(word, &mut ids),
            }
        }
        ids
    }

    /// Makes one row: start, ids, end, zeros; an over-long text keeps its end token.
    pub fn encode_row(&self, text: &str, context_length: usize) -> Vec<i64> {
        let mut ids = vec![START_OF_TEXT];
        ids.extend(self.encode(text));
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
