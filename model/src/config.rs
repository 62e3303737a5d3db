//! What a CLIP model is made of, in the file form OpenCLIP uses (`open_clip_config.json`).
//!
//! Invariants of a [`ClipConfig`] made here: widths divide into heads, the picture into patches.
//! A key that would change the model and is not supported is an error naming it; a key that merely
//! repeats the default (`"attentional_pool": false`) is accepted.

mod parse;
mod read;
mod write;

use serde_json::Value;

pub use clade_pictures::{Interpolation, ResizeMode};
use clade_pictures::{RgbImage, eval_pixels_as};

/// Mean and deviation of the red, green and blue of the pictures CLIP was made with.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

const NORM_EPS: f64 = 1e-5;
/// ln(1/0.07)
const INIT_LOGIT_SCALE: f64 = 2.659_260_036_932_778;
const EOS_ID: i64 = 2;

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
    pub vision: VisionConfig,
    pub text: TextConfig,
    /// Natural log of a new model's inverse temperature.
    pub init_logit_scale: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    pub image_size: i64,
    pub patch_size: i64,
    pub blocks: BlockConfig,
    pub has_ln_pre: bool,
    pub pool: VisionPool,
}

/// How the picture tower's positions become one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisionPool {
    /// The class token's; `pool_type: tok`.
    ClassToken,
    /// The patches' mean, then the last norm; `pool_type: avg`, `final_ln_after_pool`.
    MeanThenNorm,
    /// The last norm, then the patches' mean; `pool_type: avg`.
    NormThenMean,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    pub context_length: i64,
    pub vocab_size: i64,
    pub blocks: BlockConfig,
    pub is_causal: bool,
    pub pool: TextPool,
    pub projection: TextProjection,
    /// Another tokenizer than CLIP's, by its name on a hub: captions must come as token ids then.
    pub foreign_tokenizer: Option<String>,
}

/// At which position of a caption the feature is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPool {
    /// The first of the largest ids.
    Argmax,
    /// The first of this id, or position 0.
    Eos(i64),
    First,
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextProjection {
    /// `text_projection`, `[width, embed]`.
    Matrix,
    /// `text_projection.weight`, `[embed, width]`, and its bias.
    Linear,
    /// None: the width is the embedding's.
    None,
}

/// What the residual blocks of one tower are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockConfig {
    pub layers: i64,
    pub width: i64,
    pub heads: i64,
    pub mlp_ratio: f64,
    pub activation: Activation,
    pub norm_eps: f64,
    /// First value of the gains after attention and MLP, if there are such.
    pub layer_scale: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The exact GELU, by the error function.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// `x·σ(1.702x)`
    QuickGelu,
}

impl BlockConfig {
    /// Width of the MLP's hidden layer.
    pub fn hidden(&self) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "OpenCLIP truncates so too")]
        let hidden = (self.width as f64 * self.mlp_ratio) as i64;
        hidden
    }
}

impl TextPool {
    /// The pooled position of one caption's token ids.
    pub(crate) fn position(self, ids: &[i64]) -> usize {
        let first_of = |wanted: i64| ids.iter().position(|&id| id == wanted).unwrap_or(0);
        match self {
            Self::Argmax => ids.iter().max().map_or(0, |&largest| first_of(largest)),
            Self::Eos(id) => first_of(id),
            Self::First => 0,
            Self::Last => ids.len().saturating_sub(1),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessConfig {
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// For evaluation; training crops at random.
    pub resize: ResizeMode,
    /// For evaluation; training is bicubic, as OpenCLIP's.
    pub interpolation: Interpolation,
}

impl Default for PreprocessConfig {
    fn default() -> Self {
        Self {
            mean: CLIP_MEAN,
            std: CLIP_STD,
            resize: ResizeMode::Shortest,
            interpolation: Interpolation::Bicubic,
        }
    }
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
    #[error(
        "key {key} is not supported (value {value}): what is read is a ViT with a CLIP text tower"
    )]
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
        let activation = if quick_gelu { Activation::QuickGelu } else { Activation::Gelu };
        let blocks = |layers, width, heads| BlockConfig {
            layers,
            width,
            heads,
            mlp_ratio: 4.0,
            activation,
            norm_eps: NORM_EPS,
            layer_scale: None,
        };
        let (image_size, patch_size, layers, width, head_width) = vision;
        let vision = VisionConfig {
            image_size,
            patch_size,
            blocks: blocks(layers, width, width / head_width),
            has_ln_pre: true,
            pool: VisionPool::ClassToken,
        };
        let (context_length, layers, width, heads) = text;
        let text = TextConfig {
            context_length,
            vocab_size: 49_408,
            blocks: blocks(layers, width, heads),
            is_causal: true,
            pool: TextPool::Argmax,
            projection: TextProjection::Matrix,
            foreign_tokenizer: None,
        };
        Ok(Self {
            model: ModelConfig { embed_dim, vision, text, init_logit_scale: INIT_LOGIT_SCALE },
            preprocess: PreprocessConfig::default(),
        })
    }

    /// Reads the text of an `open_clip_config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        parse::config(text)
    }

    /// Writes the text of an `open_clip_config.json` that `open_clip` loads.
    pub fn to_json(&self) -> String {
        write::config(self)
    }

    /// Makes of a picture what the model sees in evaluation.
    ///
    /// # Shapes
    ///
    /// - returns `[3, size, size]`, before mean and deviation
    pub fn eval_pixels(&self, picture: &RgbImage) -> Vec<u8> {
        let PreprocessConfig { resize, interpolation, .. } = self.preprocess;
        eval_pixels_as(picture, self.image_size(), resize, interpolation)
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
        let resnet =
            refused("\"image_size\": 224,\n      \"layers\": 12", "\"layers\": [3, 4, 6, 3]");
        assert!(resnet.contains("model_cfg.vision_cfg.layers is not supported"), "{resnet}");
        let timm = refused("\"patch_size\": 32", "\"timm_model_name\": \"vit_so400m\"");
        assert!(timm.contains("model_cfg.vision_cfg.timm_model_name"), "{timm}");
        let siglip = refused("\"quick_gelu\"", "\"init_logit_bias\": -10, \"quick_gelu\"");
        assert!(siglip.contains("model_cfg.init_logit_bias"), "{siglip}");
        let coca = refused("\"quick_gelu\"", "\"multimodal_cfg\": {}, \"quick_gelu\"");
        assert!(coca.contains("model_cfg.multimodal_cfg"), "{coca}");
        let patch = refused("\"patch_size\": 32", "\"patch_size\": 30");
        assert!(patch.contains("model_cfg.vision_cfg.patch_size"), "{patch}");
    }

    #[test]
    fn an_unknown_preset_names_the_known_ones() {
        let message = ClipConfig::preset("tiny-quickgelu").unwrap_err().to_string();
        assert!(message.contains("ViT-B-32-quickgelu"), "{message}");
    }
}
