//! The residual blocks both towers are made of, as OpenCLIP's `ResidualAttentionBlock`.
//!
//! A tower needs one position of its last block only, so that block computes just this position's
//! query, projection and MLP: the same numbers for a fifth less work in a model of four layers.
//!
//! Dimension names: `batch`, `tokens` (positions), `width`, `heads`, `head` (width of one head).

use tch::{Kind, Tensor};

use crate::flat::FlatParams;

const NORM_EPS: f64 = 1e-5;

/// A layer norm's gain and offset.
#[derive(Debug)]
pub struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    pub(crate) fn new(params: &FlatParams, prefix: &str) -> Self {
        Self {
            weight: params.leaf(&format!("{prefix}.weight")),
            bias: params.leaf(&format!("{prefix}.bias")),
        }
    }

    pub(crate) fn parameters(prefix: &str, width: i64) -> [(String, Vec<i64>); 2] {
        [(format!("{prefix}.weight"), vec![width]), (format!("{prefix}.bias"), vec![width])]
    }

    /// Normalises the last dimension.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), NORM_EPS, false)
    }
}

/// One residual attention block.
#[derive(Debug)]
struct Block {
    ln_1: Norm,
    in_proj_weight: Tensor,
    in_proj_bias: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor,
    ln_2: Norm,
    fc_weight: Tensor,
    fc_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    heads: i64,
    quick_gelu: bool,
}

/// The positions a tower keeps, one per row of the batch.
pub(crate) struct Pooled {
    /// `[batch]` i64, indices into `batch · tokens`.
    pub(crate) flat: Tensor,
    /// `[batch, 1, 1, tokens]` bool, true where the kept position may look; none: everywhere.
    pub(crate) visible: Option<Tensor>,
}

impl Block {
    fn new(params: &FlatParams, prefix: &str, heads: i64, quick_gelu: bool) -> Self {
        let leaf = |name: &str| params.leaf(&format!("{prefix}.{name}"));
        Self {
            ln_1: Norm::new(params, &format!("{prefix}.ln_1")),
            in_proj_weight: leaf("attn.in_proj_weight"),
            in_proj_bias: leaf("attn.in_proj_bias"),
            out_proj_weight: leaf("attn.out_proj.weight"),
            out_proj_bias: leaf("attn.out_proj.bias"),
            ln_2: Norm::new(params, &format!("{prefix}.ln_2")),
            fc_weight: leaf("mlp.c_fc.weight"),
            fc_bias: leaf("mlp.c_fc.bias"),
            proj_weight: leaf("mlp.c_proj.weight"),
            proj_bias: leaf("mlp.c_proj.bias"),
            heads,
            quick_gelu,
        }
    }

    fn forward(&self, x: &Tensor, is_causal: bool) -> Tensor {
        let (batch, tokens, width) = x.size3().expect("block input is [batch, tokens, width]");
        let qkv = self.ln_1.forward(x).linear(&self.in_proj_weight, Some(&self.in_proj_bias));
        let qkv = qkv.view([batch, tokens, 3, self.heads, width / self.heads]);
        let qkv = qkv.permute([2, 0, 3, 1, 4]); // [3, batch, heads, tokens, head]
        let (q, k, v) = (qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2));
        let mask = None::<Tensor>;
        let mixed =
            Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, is_causal, None, false);
        let mixed = mixed.transpose(1, 2).reshape([batch, tokens, width]);
        let x = x + mixed.linear(&self.out_proj_weight, Some(&self.out_proj_bias));
        &x + self.mlp(&self.ln_2.forward(&x))
    }

    /// Computes the pooled positions of [`Self::forward`] only.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, tokens, width]`
    /// - returns `[batch, width]`
    fn forward_pooled(&self, x: &Tensor, pooled: &Pooled) -> Tensor {
        let (batch, tokens, width) = x.size3().expect("block input is [batch, tokens, width]");
        let head = width / self.heads;
        let pick = |x: &Tensor| x.reshape([batch * tokens, width]).index_select(0, &pooled.flat);
        let normed = self.ln_1.forward(x); // [batch, tokens, width]
        let (weight, bias) = (&self.in_proj_weight, &self.in_proj_bias);
        let q = pick(&normed).linear(&weight.narrow(0, 0, width), Some(&bias.narrow(0, 0, width)));
        let q = q.view([batch, self.heads, 1, head]);
        let kv = normed
            .linear(&weight.narrow(0, width, 2 * width), Some(&bias.narrow(0, width, 2 * width)))
            .view([batch, tokens, 2, self.heads, head])
            .permute([2, 0, 3, 1, 4]); // [2, batch, heads, tokens, head]
        let (k, v) = (kv.select(0, 0), kv.select(0, 1));
        let mask = pooled.visible.as_ref();
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, false, None, false);
        let mixed = mixed.reshape([batch, width]);
        let x = pick(x) + mixed.linear(&self.out_proj_weight, Some(&self.out_proj_bias));
        &x + self.mlp(&self.ln_2.forward(&x))
    }

    fn mlp(&self, x: &Tensor) -> Tensor {
        let hidden = x.linear(&self.fc_weight, Some(&self.fc_bias));
        let hidden = if self.quick_gelu {
            (&hidden * 1.702).sigmoid() * hidden
        } else {
            hidden.gelu("none")
        };
        hidden.linear(&self.proj_weight, Some(&self.proj_bias))
    }
}

/// A stack of residual blocks.
#[derive(Debug)]
pub struct Transformer {
    blocks: Vec<Block>,
    is_causal: bool,
}

impl Transformer {
    pub(crate) fn new(
        params: &FlatParams,
        prefix: &str,
        layers: i64,
        heads: i64,
        quick_gelu: bool,
        is_causal: bool,
    ) -> Self {
        let block = |i| Block::new(params, &format!("{prefix}.resblocks.{i}"), heads, quick_gelu);
        Self { blocks: (0..layers).map(block).collect(), is_causal }
    }

    /// Names and shapes of the parameters of such a stack.
    pub(crate) fn parameters(
        prefix: &str,
        layers: i64,
        width: i64,
        mlp_ratio: f64,
    ) -> Vec<(String, Vec<i64>)> {
        #[expect(clippy::cast_possible_truncation, reason = "OpenCLIP truncates so too")]
        let hidden = (width as f64 * mlp_ratio) as i64;
        let mut found = Vec::new();
        for layer in 0..layers {
            let block = format!("{prefix}.resblocks.{layer}");
            found.extend(Norm::parameters(&format!("{block}.ln_1"), width));
            found.extend(Norm::parameters(&format!("{block}.ln_2"), width));
            for (name, shape) in [
                ("attn.in_proj_weight", vec![3 * width, width]),
                ("attn.in_proj_bias", vec![3 * width]),
                ("attn.out_proj.weight", vec![width, width]),
                ("attn.out_proj.bias", vec![width]),
                ("mlp.c_fc.weight", vec![hidden, width]),
                ("mlp.c_fc.bias", vec![hidden]),
                ("mlp.c_proj.weight", vec![width, hidden]),
                ("mlp.c_proj.bias", vec![width]),
            ] {
                found.push((format!("{block}.{name}"), shape));
            }
        }
        found
    }

    /// Runs all blocks and returns the pooled positions of the last.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, tokens, width]`
    /// - returns `[batch, width]`
    pub(crate) fn forward_pooled(&self, x: &Tensor, pooled: &Pooled) -> Tensor {
        let (last, before) = self.blocks.split_last().expect("a tower has at least one layer");
        let mut x = x.shallow_clone();
        for block in before {
            x = block.forward(&x, self.is_causal);
        }
        last.forward_pooled(&x, pooled)
    }
}

/// Flat indices of one position per row.
///
/// # Shapes
///
/// - `positions`: `[batch]` i64, each below `tokens`
/// - returns `[batch]` i64, each below `batch · tokens`
pub(crate) fn flat_positions(positions: &Tensor, tokens: i64) -> Tensor {
    let batch = positions.size()[0];
    Tensor::arange(batch, (Kind::Int64, positions.device())) * tokens + positions
}
