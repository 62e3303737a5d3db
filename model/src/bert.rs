//! A sentence encoder of the BERT family: caption in, unit vector out.
//!
//! Reads a folder with `config.json`, `model.safetensors` and `tokenizer.json`, as sentence
//! transformers lay it out; mean pooling over the tokens. Refuses other architectures by the key
//! that tells them.
//!
//! Captions are sorted by length and computed in batches of few padded positions; the result does
//! not depend on what else is embedded in the same call beyond the last bits.

mod config;
mod network;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tch::Tensor;
use tokenizers::{Tokenizer, TruncationParams};

use crate::clip::unit_rows;
use crate::weights::{self, TensorFile, WeightsError};
use config::BertConfig;
use network::Network;

/// Longest caption, in tokens, start and end included; the rest is cut off.
const MAX_TOKENS: usize = 256;
/// Positions computed at a time: enough to keep two cores busy, little enough for their caches.
const BATCH_POSITIONS: usize = 1024;

/// Why captions could not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum SentenceError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: key {key} {why}", path.display())]
    Config { path: PathBuf, key: String, why: String },
    #[error("{} is not a tokenizer: {why}", path.display())]
    Tokenizer { path: PathBuf, why: String },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("cannot tokenize a caption: {why}")]
    Encode { why: String },
}

/// A sentence encoder in host memory, f32.
#[derive(Debug)]
pub struct SentenceEncoder {
    tokenizer: Tokenizer,
    network: Network,
    width: usize,
}

impl SentenceEncoder {
    /// Loads the encoder from a folder.
    pub fn load(dir: &Path) -> Result<Self, SentenceError> {
        let path = dir.join("config.json");
        let text = fs::read_to_string(&path)
            .map_err(|source| SentenceError::Read { path: path.clone(), source })?;
        let config = BertConfig::parse(&text).map_err(|(key, why)| SentenceError::Config {
            path,
            key,
            why,
        })?;

        let path = dir.join("tokenizer.json");
        let failed = |why: tokenizers::Error| SentenceError::Tokenizer {
            path: path.clone(),
            why: why.to_string(),
        };
        let mut tokenizer = Tokenizer::from_file(&path).map_err(failed)?;
        let max_length = MAX_TOKENS.min(config.max_positions);
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(failed)?;
        tokenizer.with_padding(None);
        let vocabulary = tokenizer.get_vocab_size(true);
        if vocabulary > config.vocabulary {
            let why = format!("knows {vocabulary} words, config.json {}", config.vocabulary);
            return Err(SentenceError::Tokenizer { path, why });
        }

        let path = dir.join("model.safetensors");
        let bytes = weights::read_bytes(&path)?;
        let network = Network::load(&TensorFile::parse(&path, &bytes)?, &config)?;
        Ok(Self { tokenizer, network, width: config.width })
    }

    /// Number of values per caption.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Embeds captions, in the order given.
    ///
    /// # Shapes
    ///
    /// - returns `[texts, width]`, rows of unit length
    pub fn embed(&self, texts: &[String]) -> Result<Tensor, SentenceError> {
        let values = self.embed_vec(texts)?;
        let sizes = [texts.len(), self.width].map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        Ok(Tensor::from_slice(&values).view(sizes))
    }

    /// Embeds captions as plain values, row after row.
    pub fn embed_vec(&self, texts: &[String]) -> Result<Vec<f32>, SentenceError> {
        let _no_graph = tch::no_grad_guard();
        let encode = |text: &String| {
            let encoded = self.tokenizer.encode_fast(text.as_str(), true);
            let encoded = encoded.map_err(|why| SentenceError::Encode { why: why.to_string() })?;
            Ok(encoded.get_ids().iter().map(|&id| i64::from(id)).collect())
        };
        let rows = texts.iter().map(encode).collect::<Result<Vec<Vec<i64>>, SentenceError>>()?;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&row| rows[row].len());
        let mut out = vec![0.0; rows.len() * self.width];
        let mut rest = order.as_slice();
        while let Some(&shortest) = rest.first() {
            let length = rows[shortest].len().max(1);
            let mut count = (BATCH_POSITIONS / length).clamp(1, rest.len());
            // The last of the batch is its longest: shrink until its padding fits too.
            while count > 1 && count * rows[rest[count - 1]].len() > BATCH_POSITIONS {
                count -= 1;
            }
            let (batch, later) = rest.split_at(count);
            let embedded =
                self.embed_batch(batch.iter().map(|&row| rows[row].as_slice()).collect());
            let width = self.width;
            for (&row, values) in batch.iter().zip(embedded.chunks_exact(width)) {
                out[row * width..(row + 1) * width].copy_from_slice(values);
            }
            rest = later;
        }
        Ok(out)
    }

    fn embed_batch(&self, rows: Vec<&[i64]>) -> Vec<f32> {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
        let is_padded = rows.iter().any(|row| row.len() < longest);
        let mut ids = Vec::with_capacity(rows.len() * longest);
        let mut mask = Vec::with_capacity(rows.len() * longest);
        for row in &rows {
            ids.extend_from_slice(row);
            ids.resize(ids.len() + longest - row.len(), 0);
            mask.resize(mask.len() + row.len(), true);
            mask.resize(mask.len() + longest - row.len(), false);
        }
        let sizes = [rows.len(), longest].map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        let ids = Tensor::from_slice(&ids).view(sizes);
        let mask = Tensor::from_slice(&mask).view(sizes);
        let pooled = self.network.forward(&ids, &mask, is_padded); // [rows, width]
        let unit = unit_rows(&pooled).contiguous();
        crate::native::values(&unit).to_vec()
    }
}

#[cfg(test)]
mod tests;
