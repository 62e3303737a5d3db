//! What a CLIP model is made of, in the file form OpenCLIP uses (`open_clip_config.json`).
//!
//! Invariants of a [`ClipConfig`] made here: widths divide into heads, the picture into patches.
//! A key that would change the model and is not supported is an error naming it; a key that merely
//! repeats the default (`"pool_type": "tok"`) is accepted.

mod read;

use serde_json::{Value, json};

use read::Section;

/// Mean and deviation of the red, green and blue of the pictures CLIP was made with.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A CLIP model and how its pictures are prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    pub model: ModelConfig,
    pub preprocess: PreprocessConfig,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Width of the space that pictures and captions share.
    pub embed_dim: i64,
    /// `x·σ(1.702x)` in place of the exact GELU.
    pub quick_gelu: bool,
    pub vision: VisionConfig,
    pub text: TextConfig,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    pub image_size: i64,
    pub layers: i64,
    pub width: i64,
    pub head_width: i64,
    pub patch_size: i64,
    pub mlp_ratio: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    pub context_length: i64,
    pub vocab_size: i64,
    pub width: i64,
    pub heads: i64,
    pub layers: i64,
    pub mlp_ratio: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessConfig {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("preset {name:?} is unknown: known are {}", ClipConfig::PRESETS.join(", "))]
    UnknownPreset { name: String },
    #[error("the configuration is not JSON")]
    Json(#[from] serde_json::Error),
    #[error("key {key} is missing")]
    Missing { key: String },
    #[error("key {key} is not supported (value {value}): only ViT with a CLIP text tower is")]
    UnsupportedKey { key: String, value: Value },
    #[error("key {key} must be {expected}, found {value}")]
    BadValue { key: String, expected: &'static str, value: Value },
}

impl ClipConfig {
    pub const PRESETS: &[&str] = &[
        "tiny",
        "small",
        "ViT-B-32",
        "ViT-B-32-quickgelu",
        "ViT-B-16",
        "ViT-B-16-quickgelu",
        "ViT-L-14",
        "ViT-L-14-quickgelu",
    ];

    /// Finds a model by name: `tiny` is for tests, `small` for two cores, the rest are OpenCLIP's.
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        let unknown = || ConfigError::UnknownPreset { name: name.to_owned() };
        let plain = name.strip_suffix("-quickgelu").unwrap_or(name);
        let quick_gelu = plain != name;
        // size, patch, vision layers x width (head width), text positions, layers x width (heads), embed
        let (vision, text, embed_dim) = match plain {
            "tiny" => ((32, 8, 2, 64, 32), (16, 2, 64, 2), 64),
            "small" => ((40, 8, 4, 128, 32), (24, 4, 128, 4), 128),
            "ViT-B-32" => ((224, 32, 12, 768, 64), (77, 12, 512, 8), 512),
            "ViT-B-16" => ((224, 16, 12, 768, 64), (77, 12, 512, 8), 512),
            "ViT-L-14" => ((224, 14, 24, 1024, 64), (77, 12, 768, 12), 768),
            _ => return Err(unknown()),
        };
        if quick_gelu && !Self::PRESETS.contains(&name) {
            return Err(unknown());
        }
        let (image_size, patch_size, layers, width, head_width) = vision;
        let vision =
            VisionConfig { image_size, layers, width, head_width, patch_size, mlp_ratio: 4.0 };
        let (context_length, layers, width, heads) = text;
        let vocab_size = 49_408;
        let text = TextConfig { context_length, vocab_size, width, heads, layers, mlp_ratio: 4.0 };
        Ok(Self {
            model: ModelConfig { embed_dim, quick_gelu, vision, text },
            preprocess: PreprocessConfig { mean: CLIP_MEAN, std: CLIP_STD },
        })
    }

    /// Reads the text of an `open_clip_config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let mut root = Section::root(serde_json::from_str(text)?)?;
        let mut model = root.section("model_cfg")?;
        let embed_dim = model.positive("embed_dim", None)?;
        let quick_gelu = model.boolean("quick_gelu", false)?;
        let vision = vision(model.section("vision_cfg")?)?;
        let text = text_tower(model.section("text_cfg")?)?;
        model.tolerate("custom_text", &[json!(false), Value::Null])?;
        model.tolerate("init_logit_bias", &[Value::Null])?;
        model.tolerate("cast_dtype", &[Value::Null, json!("")])?;
        model.finish()?;
        let preprocess = match root.optional_section("preprocess_cfg")? {
            Some(section) => preprocess(section, vision.image_size)?,
            None => PreprocessConfig { mean: CLIP_MEAN, std: CLIP_STD },
        };
        root.finish()?;
        Ok(Self { model: ModelConfig { embed_dim, quick_gelu, vision, text }, preprocess })
    }

    /// Writes the text of an `open_clip_config.json` that `open_clip` loads.
    pub fn to_json(&self) -> String {
        let Self { model: ModelConfig { embed_dim, quick_gelu, vision, text }, preprocess } = self;
        let PreprocessConfig { mean, std } = preprocess;
        let value = json!({
            "model_cfg": {
                "embed_dim": embed_dim,
                "quick_gelu": quick_gelu,
                "vision_cfg": {
                    "image_size": vision.image_size,
                    "layers": vision.layers,
                    "width": vision.width,
                    "head_width": vision.head_width,
                    "patch_size": vision.patch_size,
                    "mlp_ratio": vision.mlp_ratio,
                },
                "text_cfg": {
                    "context_length": text.context_length,
                    "vocab_size": text.vocab_size,
                    "width": text.width,
                    "heads": text.heads,
                    "layers": text.layers,
                    "mlp_ratio": text.mlp_ratio,
                },
            },
            "preprocess_cfg": {
                "mean": mean.map(exact),
                "std": std.map(exact),
                "interpolation": "bicubic",
                "resize_mode": "shortest",
            },
        });
        let mut text = serde_json::to_string_pretty(&value).expect("plain values have a JSON form");
        text.push('\n');
        text
    }

    /// Height and width of the pictures the model sees.
    pub fn image_size(&self) -> usize {
        usize::try_from(self.model.vision.image_size).expect("validated as positive")
    }

    /// Number of token positions of a caption, with start and end.
    pub fn context_length(&self) -> usize {
        usize::try_from(self.model.text.context_length).expect("validated as positive")
    }
}

/// The shortest decimal that reads back as the same f32, as an f64 (`0.48145466`, not `0.4814546…`).
fn exact(value: f32) -> f64 {
    value.to_string().parse().expect("a printed f32 is a number")
}

fn vision(mut section: Section) -> Result<VisionConfig, ConfigError> {
    let config = VisionConfig {
        image_size: section.positive("image_size", Some(224))?,
        layers: section.positive("layers", Some(12))?,
        width: section.positive("width", Some(768))?,
        head_width: section.positive("head_width", Some(64))?,
        patch_size: section.positive("patch_size", Some(16))?,
        mlp_ratio: section.ratio("mlp_ratio", 4.0)?,
    };
    section.divides("head_width", config.head_width, "a divisor of width", config.width)?;
    section.divides(
        "patch_size",
        config.patch_size,
        "a divisor of image_size",
        config.image_size,
    )?;
    for (key, neutral) in [
        ("patch_dropout", json!(0.0)),
        ("attentional_pool", json!(false)),
        ("no_ln_pre", json!(false)),
        ("pos_embed_type", json!("learnable")),
        ("pool_type", json!("tok")),
    ] {
        section.tolerate(key, &[neutral])?;
    }
    section.tolerate_block_keys()?;
    section.finish()?;
    Ok(config)
}

fn text_tower(mut section: Section) -> Result<TextConfig, ConfigError> {
    let config = TextConfig {
        context_length: section.positive("context_length", Some(77))?,
        vocab_size: section.positive("vocab_size", Some(49_408))?,
        width: section.positive("width", Some(512))?,
        heads: section.positive("heads", Some(8))?,
        layers: section.positive("layers", Some(12))?,
        mlp_ratio: section.ratio("mlp_ratio", 4.0)?,
    };
    section.divides("heads", config.heads, "a divisor of width", config.width)?;
    for (key, neutral) in [
        ("embed_cls", json!(false)),
        ("no_causal_mask", json!(false)),
        ("pool_type", json!("argmax")),
        ("proj_type", json!("linear")),
        ("proj_bias", json!(false)),
        ("pad_id", json!(0)),
        ("hf_model_name", Value::Null),
        ("hf_tokenizer_name", Value::Null),
        ("tokenizer_kwargs", Value::Null),
    ] {
        section.tolerate(key, &[neutral])?;
    }
    section.tolerate_block_keys()?;
    section.finish()?;
    Ok(config)
}

fn preprocess(mut section: Section, image_size: i64) -> Result<PreprocessConfig, ConfigError> {
    let config = PreprocessConfig {
        mean: section.colour("mean", CLIP_MEAN)?,
        std: section.colour("std", CLIP_STD)?,
    };
    section.tolerate("size", &[json!(image_size), json!([image_size, image_size])])?;
    section.tolerate("mode", &[json!("RGB")])?;
    section.tolerate("interpolation", &[json!("bicubic")])?;
    section.tolerate("resize_mode", &[json!("shortest")])?;
    section.tolerate("fill_color", &[json!(0)])?;
    section.finish()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_survives_its_own_file_form() {
        for name in ClipConfig::PRESETS {
            let preset = ClipConfig::preset(name).unwrap();
            assert_eq!(ClipConfig::from_json(&preset.to_json()).unwrap(), preset, "{name}");
        }
    }

    #[test]
    fn an_unsupported_tower_is_refused_by_its_key() {
        let refused = |from: &str, to: &str| {
            let text = ClipConfig::preset("ViT-B-32").unwrap().to_json();
            assert!(text.contains(from), "{from}");
            ClipConfig::from_json(&text.replacen(from, to, 1)).unwrap_err().to_string()
        };
        let resnet = refused("\"layers\": 12", "\"layers\": [3, 4, 6, 3]");
        assert!(resnet.contains("model_cfg.text_cfg.layers"), "{resnet}");
        let hf = refused("\"heads\": 8", "\"heads\": 8, \"hf_model_name\": \"roberta-base\"");
        assert!(hf.contains("model_cfg.text_cfg.hf_model_name"), "{hf}");
        let patch = refused("\"patch_size\": 32", "\"patch_size\": 30");
        assert!(patch.contains("model_cfg.vision_cfg.patch_size"), "{patch}");
    }

    #[test]
    fn an_unknown_preset_names_the_known_ones() {
        let message = ClipConfig::preset("tiny-quickgelu").unwrap_err().to_string();
        assert!(message.contains("ViT-B-32-quickgelu"), "{message}");
    }
}
