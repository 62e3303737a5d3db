//! The caption tower: a causal transformer, as OpenCLIP's text half of `CLIP`.
//!
//! The feature is taken at the end-of-text token, the largest id of a row. What comes after it can
//! reach nothing (the mask is causal), so most of it is not computed: see `buckets`.

mod buckets;

use tch::{Kind, Tensor};

use crate::config::{ModelConfig, TextConfig};
use crate::flat::FlatParams;
use crate::transformer::{Norm, Pooled, Transformer, flat_positions};

/// The checkpoint key of the token table, most of a small model's parameters.
pub const TOKEN_EMBEDDING: &str = "token_embedding.weight";

/// Turns captions, as token ids, into features.
#[derive(Debug)]
pub struct TextTower {
    token_embedding: Tensor,
    positional_embedding: Tensor,
    transformer: Transformer,
    ln_final: Norm,
    text_projection: Tensor,
}

impl TextTower {
    pub(crate) fn new(params: &FlatParams, config: &ModelConfig) -> Self {
        let TextConfig { heads, layers, .. } = config.text;
        Self {
            token_embedding: params.leaf(TOKEN_EMBEDDING),
            positional_embedding: params.leaf("positional_embedding"),
            transformer: Transformer::new(
                params,
                "transformer",
                layers,
                heads,
                config.quick_gelu,
                true,
            ),
            ln_final: Norm::new(params, "ln_final"),
            text_projection: params.leaf("text_projection"),
        }
    }

    /// Names and shapes of the tower's parameters, the token table first.
    pub(crate) fn parameters(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
        let TextConfig { context_length, vocab_size, width, layers, mlp_ratio, .. } = config.text;
        let mut found = vec![
            (TOKEN_EMBEDDING.to_owned(), vec![vocab_size, width]),
            ("positional_embedding".to_owned(), vec![context_length, width]),
            ("text_projection".to_owned(), vec![width, config.embed_dim]),
        ];
        found.extend(Transformer::parameters("transformer", layers, width, mlp_ratio));
        found.extend(Norm::parameters("ln_final", width));
        found
    }

    /// Computes features of captions; rows are not of unit length.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, context]` i64
    /// - returns `[batch, embed]`
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        self.forward_rows(&self.rows(tokens), tokens)
    }

    /// Looks up the rows of the token table.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, context]` i64
    /// - returns `[batch, context, width]`
    pub(crate) fn rows(&self, tokens: &Tensor) -> Tensor {
        let (batch, context) = tokens.size2().expect("tokens are [batch, context]");
        self.token_embedding.index_select(0, &tokens.reshape([-1])).view([batch, context, -1])
    }

    /// Computes features from rows of the token table.
    ///
    /// Training makes the rows leaves of their own: the gradient of the whole table, almost all
    /// zeros, is then never written out.
    ///
    /// # Shapes
    ///
    /// - `rows`: `[batch, context, width]`
    /// - `tokens`: `[batch, context]` i64
    /// - returns `[batch, embed]`
    pub(crate) fn forward_rows(&self, rows: &Tensor, tokens: &Tensor) -> Tensor {
        let ends = tokens.argmax(1, false); // [batch]
        let lengths = Vec::<i64>::try_from(&ends).expect("positions are i64");
        let lengths: Vec<usize> =
            lengths.into_iter().map(|end| usize::try_from(end + 1).unwrap_or(1)).collect();
        let mut parts = Vec::new();
        let mut order = Vec::with_capacity(lengths.len());
        for bucket in buckets::cut(&lengths) {
            let index = Tensor::from_slice(&bucket.rows);
            let used = i64::try_from(bucket.used).expect("a context fits memory");
            let part = rows.narrow(1, 0, used).index_select(0, &index); // [bucket, used, width]
            parts.push(self.forward_bucket(&part, &ends.index_select(0, &index)));
            order.extend(bucket.rows);
        }
        if let [whole] = parts.as_slice()
            && order.is_sorted()
        {
            return whole.shallow_clone();
        }
        let back = Tensor::from_slice(&order).argsort(0, false); // where each row went
        Tensor::cat(&parts, 0).index_select(0, &back)
    }

    /// # Shapes
    ///
    /// - `rows`: `[bucket, used, width]`
    /// - `ends`: `[bucket]` i64, each below `used`
    /// - returns `[bucket, embed]`
    fn forward_bucket(&self, rows: &Tensor, ends: &Tensor) -> Tensor {
        let used = rows.size()[1];
        let x = rows + self.positional_embedding.narrow(0, 0, used);
        let positions = Tensor::arange(used, (Kind::Int64, ends.device()));
        let visible = positions.unsqueeze(0).le_tensor(&ends.unsqueeze(1)); // [bucket, used]
        let visible = Some(visible.unsqueeze(1).unsqueeze(1));
        let pooled = Pooled { flat: flat_positions(ends, used), visible };
        let x = self.transformer.forward_pooled(&x, &pooled); // [bucket, width]
        self.ln_final.forward(&x).matmul(&self.text_projection)
    }
}
