//! The residual blocks both towers are made of, as OpenCLIP's `ResidualAttentionBlock`.
//!
//! Most towers need one position of their last block only, so that block computes just this
//! position's query, projection and MLP: the same numbers for a fifth less work in a model of four
//! layers. A tower is a chain of segments (see [`crate::chain`]): its blocks, and what comes before
//! and after them.
//!
//! Dimension names: `batch`, `tokens` (positions), `width`, `heads`, `head` (width of one head).

use tch::{Kind, Tensor};

use crate::config::{Activation, BlockConfig};
use crate::flat::FlatParams;

/// A layer norm's gain and offset.
#[derive(Debug)]
pub struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    pub(crate) fn new(params: &FlatParams, prefix: &str, eps: f64) -> Self {
        Self {
            weight: params.leaf(&format!("{prefix}.weight")),
            bias: params.leaf(&format!("{prefix}.bias")),
            eps,
        }
    }

    pub(crate) fn parameters(prefix: &str, width: i64) -> [(String, Vec<i64>); 2] {
        [(format!("{prefix}.weight"), vec![width]), (format!("{prefix}.bias"), vec![width])]
    }

    /// Normalises the last dimension.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
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
    ls_1: Option<Tensor>,
    ln_2: Norm,
    fc_weight: Tensor,
    fc_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    ls_2: Option<Tensor>,
    heads: i64,
    activation: Activation,
}

/// The positions a tower keeps, one per row of the batch.
pub(crate) struct Pooled {
    /// `[batch]` i64, indices into `batch · tokens`.
    pub(crate) flat: Tensor,
    /// `[batch, 1, 1, tokens]` bool, true where the kept position may look; none: everywhere.
    pub(crate) visible: Option<Tensor>,
}

impl Block {
    fn new(params: &FlatParams, prefix: &str, config: &BlockConfig) -> Self {
        let leaf = |name: &str| params.leaf(&format!("{prefix}.{name}"));
        let &BlockConfig { heads, activation, norm_eps, layer_scale, .. } = config;
        let gamma = |name: &str| layer_scale.map(|_| leaf(name));
        Self {
            ln_1: Norm::new(params, &format!("{prefix}.ln_1"), norm_eps),
            in_proj_weight: leaf("attn.in_proj_weight"),
            in_proj_bias: leaf("attn.in_proj_bias"),
            out_proj_weight: leaf("attn.out_proj.weight"),
            out_proj_bias: leaf("attn.out_proj.bias"),
            ls_1: gamma("ls_1.gamma"),
            ln_2: Norm::new(params, &format!("{prefix}.ln_2"), norm_eps),
            fc_weight: leaf("mlp.c_fc.weight"),
            fc_bias: leaf("mlp.c_fc.bias"),
            proj_weight: leaf("mlp.c_proj.weight"),
            proj_bias: leaf("mlp.c_proj.bias"),
            ls_2: gamma("ls_2.gamma"),
            heads,
            activation,
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
        self.rest(x, &mixed.transpose(1, 2).reshape([batch, tokens, width]))
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
        self.rest(&pick(x), &mixed.reshape([batch, width]))
    }

    /// What follows attention, for any number of positions.
    fn rest(&self, x: &Tensor, mixed: &Tensor) -> Tensor {
        let mixed = mixed.linear(&self.out_proj_weight, Some(&self.out_proj_bias));
        let x = x + scaled(mixed, self.ls_1.as_ref());
        &x + scaled(self.mlp(&self.ln_2.forward(&x)), self.ls_2.as_ref())
    }

    fn mlp(&self, x: &Tensor) -> Tensor {
        let hidden = x.linear(&self.fc_weight, Some(&self.fc_bias));
        let hidden = match self.activation {
            Activation::Gelu => hidden.gelu("none"),
            Activation::GeluTanh => hidden.gelu("tanh"),
            // x·σ(1.702x), by the one fused kernel that is like it
            Activation::QuickGelu => (hidden * 1.702).silu() * (1.0 / 1.702),
        };
        hidden.linear(&self.proj_weight, Some(&self.proj_bias))
    }
}

fn scaled(x: Tensor, gamma: Option<&Tensor>) -> Tensor {
    match gamma {
        Some(gamma) => x * gamma,
        None => x,
    }
}

/// A stack of residual blocks.
#[derive(Debug)]
pub struct Transformer {
    blocks: Vec<Block>,
    prefix: String,
    is_causal: bool,
}

impl Transformer {
    pub(crate) fn new(
        params: &FlatParams,
        prefix: &str,
        config: &BlockConfig,
        is_causal: bool,
    ) -> Self {
        let block = |i| Block::new(params, &block_name(prefix, i), config);
        let blocks = 0..usize::try_from(config.layers).expect("validated as positive");
        Self { blocks: blocks.map(block).collect(), prefix: prefix.to_owned(), is_causal }
    }

    /// Names and shapes of the parameters of such a stack.
    pub(crate) fn parameters(prefix: &str, config: &BlockConfig) -> Vec<(String, Vec<i64>)> {
        let BlockConfig { layers, width, layer_scale, .. } = *config;
        let hidden = config.hidden();
        let mut found = Vec::new();
        for layer in 0..usize::try_from(layers).expect("validated as positive") {
            let block = block_name(prefix, layer);
            found.extend(Norm::parameters(&format!("{block}.ln_1"), width));
            found.extend(Norm::parameters(&format!("{block}.ln_2"), width));
            let gammas = ["ls_1.gamma", "ls_2.gamma"].map(|name| (name, vec![width]));
            for (name, shape) in [
                ("attn.in_proj_weight", vec![3 * width, width]),
                ("attn.in_proj_bias", vec![3 * width]),
                ("attn.out_proj.weight", vec![width, width]),
                ("attn.out_proj.bias", vec![width]),
                ("mlp.c_fc.weight", vec![hidden, width]),
                ("mlp.c_fc.bias", vec![hidden]),
                ("mlp.c_proj.weight", vec![width, hidden]),
                ("mlp.c_proj.bias", vec![width]),
            ]
            .into_iter()
            .chain(layer_scale.into_iter().flat_map(|_| gammas.clone()))
            {
                found.push((format!("{block}.{name}"), shape));
            }
        }
        found
    }

    pub(crate) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// What the names of one block's parameters start with.
    pub(crate) fn block_prefix(&self, layer: usize) -> String {
        format!("{}.", block_name(&self.prefix, layer))
    }

    /// Runs one block.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, tokens, width]`
    /// - returns the same shape
    pub(crate) fn block(&self, layer: usize, x: &Tensor) -> Tensor {
        self.blocks[layer].forward(x, self.is_causal)
    }

    /// Runs the last block, for the pooled positions only.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, tokens, width]`
    /// - returns `[batch, width]`
    pub(crate) fn last_block_pooled(&self, x: &Tensor, pooled: &Pooled) -> Tensor {
        let last = self.blocks.last().expect("a tower has at least one layer");
        last.forward_pooled(x, pooled)
    }
}

fn block_name(prefix: &str, layer: usize) -> String {
    format!("{prefix}.resblocks.{layer}")
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
