//! OpenCLIP's file to a configuration: every key is understood or refused by name.

use serde_json::{Value, json};

use super::read::Section;
use super::{
    Activation, BlockConfig, CLIP_MEAN, CLIP_STD, ClipConfig, ConfigError, EOS_ID,
    INIT_LOGIT_SCALE, Interpolation, ModelConfig, NORM_EPS, PreprocessConfig, ResizeMode,
    TextConfig, TextPool, TextProjection, VisionConfig, VisionPool,
};

pub(super) fn config(text: &str) -> Result<ClipConfig, ConfigError> {
    let mut root = Section::root(serde_json::from_str(text)?)?;
    let mut model = root.section("model_cfg")?;
    let embed_dim = model.positive("embed_dim", None)?;
    let quick_gelu = model.boolean("quick_gelu", false)?;
    let init_logit_scale = model.number("init_logit_scale", INIT_LOGIT_SCALE)?;
    let vision = vision(model.section("vision_cfg")?, quick_gelu)?;
    let text = text_tower(model.section("text_cfg")?, quick_gelu, embed_dim)?;
    model.tolerate("custom_text", &[json!(false), Value::Null])?;
    model.tolerate("init_logit_bias", &[Value::Null])?;
    model.tolerate("nonscalar_logit_scale", &[json!(false)])?;
    model.tolerate("cast_dtype", &[Value::Null, json!("")])?;
    model.finish()?;
    let preprocess = match root.optional_section("preprocess_cfg")? {
        Some(section) => preprocess(section, vision.image_size)?,
        None => PreprocessConfig::default(),
    };
    root.finish()?;
    Ok(ClipConfig { model: ModelConfig { embed_dim, vision, text, init_logit_scale }, preprocess })
}

fn vision(mut section: Section, quick_gelu: bool) -> Result<VisionConfig, ConfigError> {
    section.only_vit()?;
    let image_size = section.positive("image_size", Some(224))?;
    let patch_size = section.positive("patch_size", Some(16))?;
    section.divides("patch_size", patch_size, "a divisor of image_size", image_size)?;
    let width = section.positive("width", Some(768))?;
    let head_width = section.positive("head_width", Some(64))?;
    section.divides("head_width", head_width, "a divisor of width", width)?;
    let blocks = blocks(&mut section, width, width / head_width, quick_gelu)?;
    let has_ln_pre = !section.boolean("no_ln_pre", false)?;
    let norm_after_pool = section.boolean("final_ln_after_pool", false)?;
    let pool = match section.one_of("pool_type", &["tok", "avg"])? {
        0 => VisionPool::ClassToken,
        _ if norm_after_pool => VisionPool::MeanThenNorm,
        _ => VisionPool::NormThenMean,
    };
    section.tolerate("patch_dropout", &[json!(0.0)])?;
    section.tolerate("attentional_pool", &[json!(false)])?;
    section.tolerate("pos_embed_type", &[json!("learnable")])?;
    section.tolerate_block_keys()?;
    section.finish()?;
    Ok(VisionConfig { image_size, patch_size, blocks, has_ln_pre, pool })
}

fn text_tower(
    mut section: Section,
    quick_gelu: bool,
    embed_dim: i64,
) -> Result<TextConfig, ConfigError> {
    section.only_plain_text()?;
    let context_length = section.positive("context_length", Some(77))?;
    let vocab_size = section.positive("vocab_size", Some(49_408))?;
    let width = section.positive("width", Some(512))?;
    let heads = section.positive("heads", Some(8))?;
    section.divides("heads", heads, "a divisor of width", width)?;
    let blocks = blocks(&mut section, width, heads, quick_gelu)?;
    let is_causal = !section.boolean("no_causal_mask", false)?;
    let eos_id = section.id("eos_id", EOS_ID)?;
    let pool = match section.one_of("pool_type", &["argmax", "eos", "first", "last"])? {
        0 => TextPool::Argmax,
        1 => TextPool::Eos(eos_id),
        2 => TextPool::First,
        _ => TextPool::Last,
    };
    let has_bias = section.boolean("proj_bias", false)?;
    let projection = match section.one_of("proj_type", &["linear", "none"])? {
        0 if has_bias => TextProjection::Linear,
        0 => TextProjection::Matrix,
        _ => {
            section.divides(
                "proj_type",
                width,
                "a projection: width is not embed_dim",
                embed_dim,
            )?;
            section.divides(
                "proj_type",
                embed_dim,
                "a projection: width is not embed_dim",
                width,
            )?;
            TextProjection::None
        }
    };
    let foreign_tokenizer = section.text("hf_tokenizer_name")?;
    // Says how another tokenizer is to be called; CLIP's own is called plainly.
    let anything = foreign_tokenizer.is_some();
    if anything {
        section.ignore("tokenizer_kwargs");
    }
    section.tolerate("tokenizer_kwargs", &[Value::Null, json!({})])?;
    // OpenCLIP reads it, and passes it on to nobody.
    section.ignore("final_ln_after_pool");
    section.tolerate("embed_cls", &[json!(false)])?;
    section.tolerate("pad_id", &[json!(0)])?;
    section.tolerate_block_keys()?;
    section.finish()?;
    Ok(TextConfig {
        context_length,
        vocab_size,
        blocks,
        is_causal,
        pool,
        projection,
        foreign_tokenizer,
    })
}

fn blocks(
    section: &mut Section,
    width: i64,
    heads: i64,
    quick_gelu: bool,
) -> Result<BlockConfig, ConfigError> {
    let layers = section.positive("layers", Some(12))?;
    let mlp_ratio = section.ratio("mlp_ratio", 4.0)?;
    let mut activation = Activation::Gelu;
    if let Some(mut keys) = section.optional_section("act_kwargs")? {
        if keys.one_of("approximate", &["none", "tanh"])? == 1 {
            activation = Activation::GeluTanh;
        }
        keys.finish()?;
    }
    if quick_gelu {
        activation = Activation::QuickGelu;
    }
    let mut norm_eps = NORM_EPS;
    if let Some(mut keys) = section.optional_section("norm_kwargs")? {
        norm_eps = keys.number("eps", NORM_EPS)?;
        keys.finish()?;
    }
    let layer_scale = section.optional_number("ls_init_value")?;
    Ok(BlockConfig { layers, width, heads, mlp_ratio, activation, norm_eps, layer_scale })
}

fn preprocess(mut section: Section, image_size: i64) -> Result<PreprocessConfig, ConfigError> {
    let config = PreprocessConfig {
        mean: section.colour("mean", CLIP_MEAN)?,
        std: section.colour("std", CLIP_STD)?,
        resize: match section.one_of("resize_mode", &["shortest", "squash"])? {
            0 => ResizeMode::Shortest,
            _ => ResizeMode::Squash,
        },
        interpolation: match section.one_of("interpolation", &["bicubic", "bilinear"])? {
            0 => Interpolation::Bicubic,
            _ => Interpolation::Bilinear,
        },
    };
    section.tolerate("size", &[json!(image_size), json!([image_size, image_size])])?;
    section.tolerate("mode", &[json!("RGB")])?;
    section.tolerate("fill_color", &[json!(0)])?;
    section.finish()?;
    Ok(config)
}
