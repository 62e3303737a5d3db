//! The caption tower: a causal transformer, as OpenCLIP's text half of `CLIP`.
//!
//! The feature is taken at the end-of-text token, the largest id of a row. What comes after it can
//! reach nothing (the mask is causal), so positions after the last such token of a batch are not
//! computed.

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
        let tokens = trim(tokens);
        self.forward_rows(&self.rows(&tokens), &tokens)
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
        let context = tokens.size()[1];
        let x = rows + self.positional_embedding.narrow(0, 0, context);
        let ends = tokens.argmax(1, false); // [batch]
        let positions = Tensor::arange(context, (Kind::Int64, tokens.device()));
        let visible = positions.unsqueeze(0).le_tensor(&ends.unsqueeze(1)); // [batch, context]
        let visible = Some(visible.unsqueeze(1).unsqueeze(1));
        let pooled = Pooled { flat: flat_positions(&ends, context), visible };
        let x = self.transformer.forward_pooled(&x, &pooled); // [batch, width]
        self.ln_final.forward(&x).matmul(&self.text_projection)
    }
}

/// Cuts the columns after the last end-of-text token of a batch.
///
/// # Shapes
///
/// - `tokens`: `[batch, context]` i64
/// - returns `[batch, used]`, `used ≤ context`
pub(crate) fn trim(tokens: &Tensor) -> Tensor {
    let used = tokens.argmax(1, false).max().int64_value(&[]) + 1;
    tokens.narrow(1, 0, used)
}
