//! A configuration as OpenCLIP's file; keys that say what is the default anyway are left out.

use serde_json::{Map, Value, json};

use super::{
    Activation, BlockConfig, ClipConfig, EOS_ID, INIT_LOGIT_SCALE, Interpolation, ModelConfig,
    NORM_EPS, PreprocessConfig, ResizeMode, TextConfig, TextPool, TextProjection, VisionConfig,
    VisionPool,
};

pub(super) fn config(config: &ClipConfig) -> String {
    let ClipConfig { model, preprocess } = config;
    let ModelConfig { embed_dim, vision, text, init_logit_scale } = model;
    let PreprocessConfig { mean, std, resize, interpolation } = preprocess;
    let mut model_cfg = Map::new();
    model_cfg.insert("embed_dim".to_owned(), json!(embed_dim));
    let quick_gelu = vision.blocks.activation == Activation::QuickGelu;
    model_cfg.insert("quick_gelu".to_owned(), json!(quick_gelu));
    if *init_logit_scale != INIT_LOGIT_SCALE {
        model_cfg.insert("init_logit_scale".to_owned(), json!(init_logit_scale));
    }
    model_cfg.insert("vision_cfg".to_owned(), vision_tower(vision));
    model_cfg.insert("text_cfg".to_owned(), text_tower(text));
    let value = json!({
        "model_cfg": model_cfg,
        "preprocess_cfg": {
            "mean": mean.map(exact),
            "std": std.map(exact),
            "interpolation": match interpolation {
                Interpolation::Bicubic => "bicubic",
                Interpolation::Bilinear => "bilinear",
            },
            "resize_mode": match resize {
                ResizeMode::Shortest => "shortest",
                ResizeMode::Squash => "squash",
            },
        },
    });
    let mut text = serde_json::to_string_pretty(&value).expect("plain values have a JSON form");
    text.push('\n');
    text
}

fn vision_tower(config: &VisionConfig) -> Value {
    let VisionConfig { image_size, patch_size, blocks, has_ln_pre, pool } = config;
    let mut keys = block_keys(blocks);
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("image_size", json!(image_size));
    put("patch_size", json!(patch_size));
    put("head_width", json!(blocks.width / blocks.heads));
    if !has_ln_pre {
        put("no_ln_pre", json!(true));
    }
    match pool {
        VisionPool::ClassToken => (),
        VisionPool::MeanThenNorm => {
            put("pool_type", json!("avg"));
            put("final_ln_after_pool", json!(true));
        }
        VisionPool::NormThenMean => {
            put("pool_type", json!("avg"));
        }
    }
    Value::Object(keys)
}

fn text_tower(config: &TextConfig) -> Value {
    let TextConfig {
        context_length,
        vocab_size,
        blocks,
        is_causal,
        pool,
        projection,
        foreign_tokenizer,
    } = config;
    let mut keys = block_keys(blocks);
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("context_length", json!(context_length));
    put("vocab_size", json!(vocab_size));
    put("heads", json!(blocks.heads));
    if !is_causal {
        put("no_causal_mask", json!(true));
    }
    match pool {
        TextPool::Argmax => (),
        TextPool::First => {
            put("pool_type", json!("first"));
        }
        TextPool::Last => {
            put("pool_type", json!("last"));
        }
        TextPool::Eos(id) => {
            put("pool_type", json!("eos"));
            if *id != EOS_ID {
                put("eos_id", json!(id));
            }
        }
    }
    match projection {
        TextProjection::Matrix => (),
        TextProjection::Linear => {
            put("proj_bias", json!(true));
        }
        TextProjection::None => {
            put("proj_type", json!("none"));
        }
    }
    if let Some(name) = foreign_tokenizer {
        put("hf_tokenizer_name", json!(name));
    }
    Value::Object(keys)
}

fn block_keys(config: &BlockConfig) -> Map<String, Value> {
    let BlockConfig { layers, width, heads: _, mlp_ratio, activation, norm_eps, layer_scale } =
        config;
    let mut keys = Map::new();
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("layers", json!(layers));
    put("width", json!(width));
    put("mlp_ratio", json!(mlp_ratio));
    if *activation == Activation::GeluTanh {
        put("act_kwargs", json!({"approximate": "tanh"}));
    }
    if *norm_eps != NORM_EPS {
        put("norm_kwargs", json!({"eps": norm_eps}));
    }
    if let Some(first) = layer_scale {
        put("ls_init_value", json!(first));
    }
    keys
}

/// The shortest decimal that reads back as the same f32, as an f64 (`0.48145466`, not `0.4814546…`).
fn exact(value: f32) -> f64 {
    value.to_string().parse().expect("a printed f32 is a number")
}
