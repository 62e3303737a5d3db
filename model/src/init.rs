//! First values of a model's parameters, as OpenCLIP draws them: by rule of name, from a seed.
//!
//! Each parameter has a random stream of its own, so its values depend on the seed and its name
//! alone. The vision blocks keep PyTorch's defaults (OpenAI defined no init for them, and OpenCLIP
//! leaves it so); the text blocks follow the CLIP paper.

use crate::config::ModelConfig;
use crate::flat::{Entry, Layout};
use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Draw {
    Constant(f32),
    Normal {
        deviation: f64,
    },
    /// Evenly between `-bound` and `bound`.
    Uniform {
        bound: f64,
    },
}

/// Draws all parameters of `layout`.
pub(crate) fn parameters(layout: &Layout, config: &ModelConfig, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; layout.total()];
    for entry in layout.entries() {
        fill(
            &mut values[entry.range.clone()],
            rule(entry, config),
            &mut Rng::named(seed, &entry.name),
        );
    }
    values
}

#[expect(clippy::cast_possible_truncation, reason = "drawn in f64, kept in f32")]
fn fill(values: &mut [f32], draw: Draw, rng: &mut Rng) {
    match draw {
        Draw::Constant(value) => values.fill(value),
        Draw::Normal { deviation } => {
            values.fill_with(|| (rng.normal() * deviation) as f32);
        }
        Draw::Uniform { bound } => {
            values.fill_with(|| ((rng.uniform() * 2.0 - 1.0) * bound) as f32);
        }
    }
}

fn rule(entry: &Entry, config: &ModelConfig) -> Draw {
    let in_vision = entry.name.starts_with("visual.");
    let blocks = if in_vision { &config.vision.blocks } else { &config.text.blocks };
    let (width, layers) = (blocks.width as f64, blocks.layers as f64);
    let normal = |deviation: f64| Draw::Normal { deviation };
    let uniform = |bound: f64| Draw::Uniform { bound };
    let name = entry.name.strip_prefix("visual.").unwrap_or(&entry.name);
    let part = name
        .rsplit_once("resblocks.")
        .map_or(name, |(_, in_block)| in_block.split_once('.').map_or(in_block, |(_, part)| part));
    match part {
        "logit_scale" => Draw::Constant(narrowed(config.init_logit_scale)),
        "ls_1.gamma" | "ls_2.gamma" => Draw::Constant(narrowed(blocks.layer_scale.unwrap_or(1.0))),
        "token_embedding.weight" => normal(0.02),
        "positional_embedding" if !in_vision => normal(0.01),
        "class_embedding"
        | "positional_embedding"
        | "proj"
        | "text_projection"
        | "text_projection.weight" => normal(width.powf(-0.5)),
        "conv1.weight" => uniform(fan_in(entry).powf(-0.5)),
        "attn.in_proj_weight" if in_vision => uniform((6.0 / (4.0 * width)).sqrt()),
        "attn.in_proj_weight" => normal(width.powf(-0.5)),
        "attn.out_proj.weight" | "mlp.c_proj.weight" if !in_vision => {
            normal(width.powf(-0.5) * (2.0 * layers).powf(-0.5))
        }
        "mlp.c_fc.weight" if !in_vision => normal((2.0 * width).powf(-0.5)),
        "attn.out_proj.weight" | "mlp.c_fc.weight" | "mlp.c_proj.weight" => {
            uniform(fan_in(entry).powf(-0.5))
        }
        "mlp.c_fc.bias" => uniform(width.powf(-0.5)),
        "mlp.c_proj.bias" => uniform((width * blocks.mlp_ratio).powf(-0.5)),
        norm if norm.ends_with(".weight") => Draw::Constant(1.0),
        _ => Draw::Constant(0.0),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "read in f64, kept in f32")]
fn narrowed(value: f64) -> f32 {
    value as f32
}

fn fan_in(entry: &Entry) -> f64 {
    entry.shape[1..].iter().product::<i64>() as f64
}
