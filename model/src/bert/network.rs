//! The layers of BERT, for inference.
//!
//! Dimension names: `batch` captions, `tokens` positions, `width`.

use tch::{Kind, Tensor};

use super::config::BertConfig;
use crate::weights::{TensorFile, WeightsError};

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }
}

#[derive(Debug)]
struct Layer {
    /// Query, key and value in one product.
    qkv: Linear,
    out: Linear,
    out_norm: Norm,
    inner: Linear,
    outer: Linear,
    outer_norm: Norm,
}

#[derive(Debug)]
pub(super) struct Network {
    words: Tensor,
    /// Position embeddings, with the embedding of token type 0 (the only one used) added.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    heads: i64,
}

impl Network {
    pub(super) fn load(file: &TensorFile<'_>, config: &BertConfig) -> Result<Self, WeightsError> {
        let prefix =
            if file.contains("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        let reader = Reader { file, prefix, eps: config.norm_eps };
        let width = config.width;
        let types = reader
            .tensor("embeddings.token_type_embeddings.weight", &[config.token_types, width])?;
        let positions = reader
            .tensor("embeddings.position_embeddings.weight", &[config.max_positions, width])?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            layers.push(reader.layer(&format!("encoder.layer.{index}"), config)?);
        }
        Ok(Self {
            words: reader
                .tensor("embeddings.word_embeddings.weight", &[config.vocabulary, width])?,
            positions: positions + types.narrow(0, 0, 1),
            norm: reader.norm("embeddings.LayerNorm", width)?,
            layers,
            heads: i64::try_from(config.heads).unwrap_or(1),
        })
    }

    /// Computes the mean of the last layer over each caption's own positions.
    ///
    /// # Shapes
    ///
    /// - `ids`: `[batch, tokens]` i64
    /// - `mask`: `[batch, tokens]` bool, false where a row is padded; all true unless `is_padded`
    /// - returns `[batch, width]`
    pub(super) fn forward(&self, ids: &Tensor, mask: &Tensor, is_padded: bool) -> Tensor {
        let (batch, tokens) = ids.size2().expect("ids are [batch, tokens]");
        let words = self.words.index_select(0, &ids.reshape([-1])).view([batch, tokens, -1]);
        let mut x = self.norm.forward(&(words + self.positions.narrow(0, 0, tokens)));
        let attention_mask = is_padded.then(|| mask.view([batch, 1, 1, tokens]));
        for layer in &self.layers {
            x = self.layer(layer, &x, attention_mask.as_ref());
        }
        let weight = mask.to_kind(Kind::Float).unsqueeze(2); // [batch, tokens, 1]
        let dims = [1_i64].as_slice();
        let sum = (x * &weight).sum_dim_intlist(dims, false, Kind::Float);
        sum / weight.sum_dim_intlist(dims, false, Kind::Float)
    }

    fn layer(&self, layer: &Layer, x: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let (batch, tokens, width) = x.size3().expect("layer input is [batch, tokens, width]");
        let qkv = layer.qkv.forward(x).view([batch, tokens, 3, self.heads, width / self.heads]);
        let qkv = qkv.permute([2, 0, 3, 1, 4]); // [3, batch, heads, tokens, head]
        let (q, k, v) = (qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2));
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, false, None, false);
        let mixed = mixed.transpose(1, 2).reshape([batch, tokens, width]);
        let x = layer.out_norm.forward(&(layer.out.forward(&mixed) + x));
        let hidden = layer.inner.forward(&x).gelu("none");
        layer.outer_norm.forward(&(layer.outer.forward(&hidden) + x))
    }
}

/// Takes tensors out of a checkpoint by their BERT names.
struct Reader<'a> {
    file: &'a TensorFile<'a>,
    prefix: &'static str,
    eps: f64,
}

impl Reader<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, WeightsError> {
        let values = self.file.tensor(&format!("{}{name}", self.prefix), shape)?;
        let sizes: Vec<i64> =
            shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
        Ok(Tensor::from_slice(&values).view(sizes.as_slice()))
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, WeightsError> {
        Ok(Linear {
            weight: self.tensor(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: self.tensor(&format!("{name}.bias"), &[outputs])?,
        })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, WeightsError> {
        Ok(Norm {
            weight: self.tensor(&format!("{name}.weight"), &[width])?,
            bias: self.tensor(&format!("{name}.bias"), &[width])?,
            eps: self.eps,
        })
    }

    fn layer(&self, name: &str, config: &BertConfig) -> Result<Layer, WeightsError> {
        let (width, inner) = (config.width, config.inner_width);
        let part = |part: &str| self.linear(&format!("{name}.attention.self.{part}"), width, width);
        let (query, key, value) = (part("query")?, part("key")?, part("value")?);
        Ok(Layer {
            qkv: Linear {
                weight: Tensor::cat(&[query.weight, key.weight, value.weight], 0),
                bias: Tensor::cat(&[query.bias, key.bias, value.bias], 0),
            },
            out: self.linear(&format!("{name}.attention.output.dense"), width, width)?,
            out_norm: self.norm(&format!("{name}.attention.output.LayerNorm"), width)?,
            inner: self.linear(&format!("{name}.intermediate.dense"), inner, width)?,
            outer: self.linear(&format!("{name}.output.dense"), width, inner)?,
            outer_norm: self.norm(&format!("{name}.output.LayerNorm"), width)?,
        })
    }
}
