//! `clade-worker encode`: pictures and captions to pixels, token ids and features, in one file.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clade_model::clip::{ClipModel, unit_rows};
use clade_model::tch::{Device, Kind, Tensor, no_grad};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::pairs::eval_pixels;
use super::{ComputeArgs, VocabularyArgs, check_writable, with_memory};

const LONG_ABOUT: &str = r#"Encodes a folder of pictures and a file of captions with one model.

Writes a safetensors file:

    pixels          [pictures, 3, size, size]  u8, before mean and deviation
    image_features  [pictures, embed]          f32, as open_clip's encode_image
    token_ids       [captions, context]        i64
    text_features   [captions, embed]          f32, as open_clip's encode_text

Its metadata `pictures` lists the pictures' paths in that order, as JSON. A picture that cannot
be read is named on stderr and left out."#;

/// Encodes a folder of pictures and a file of captions with one model.
#[derive(Clone, Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub struct EncodeArgs {
    /// OpenCLIP folder: `open_clip_config.json` and `open_clip_model.safetensors`
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of pictures (JPEG, PNG, WebP), read in the order of their paths, folders within too
    #[arg(long, value_name = "DIR", required_unless_present = "captions")]
    pub pictures: Option<PathBuf>,
    /// Text file with one caption a line; an empty line is an empty caption
    #[arg(long, value_name = "FILE")]
    pub captions: Option<PathBuf>,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Scale features to unit length
    #[arg(long)]
    pub unit: bool,
    /// Pictures or captions computed at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// A picture of more pixels is not decoded
    #[arg(long, default_value_t = 64 << 20)]
    pub max_pixels: u64,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArgs,
}

/// One array of the file.
struct Array {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Carries out `clade-worker encode`.
pub fn run(args: &EncodeArgs) -> anyhow::Result<()> {
    check_writable(&args.out)?;
    let model = args.compute.load(&args.model)?;
    let mut names = Vec::new();
    let arrays = with_memory("encoding", || {
        let mut arrays = Vec::new();
        if let Some(dir) = &args.pictures {
            arrays.extend(encode_pictures(args, &model, dir, &mut names)?);
        }
        if let Some(file) = &args.captions {
            arrays.extend(encode_captions(args, &model, file)?);
        }
        Ok(arrays)
    })?;
    let names = serde_json::to_string(&names).context("names are text")?;
    let metadata = HashMap::from([("pictures".to_owned(), names)]);
    let views = arrays
        .iter()
        .map(|array| {
            let Array { name, dtype, shape, bytes } = array;
            Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .context("arrays have the sizes of their shapes")?;
    safetensors::serialize_to_file(views, Some(metadata), &args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))
}

fn encode_pictures(
    args: &EncodeArgs,
    model: &ClipModel,
    dir: &Path,
    names: &mut Vec<String>,
) -> anyhow::Result<[Array; 2]> {
    let mut paths = Vec::new();
    find_pictures(dir, &mut paths)?;
    paths.sort();
    if paths.is_empty() {
        bail!("{} has no .jpg, .jpeg, .png or .webp", dir.display());
    }
    let size = model.config().image_size();
    let mut pixels = Vec::new();
    for path in &paths {
        let made = fs::read(path).map_err(|error| error.to_string()).and_then(|bytes| {
            eval_pixels(model.config(), &bytes, args.max_pixels).map_err(|error| error.to_string())
        });
        match made {
            Ok(made) => {
                pixels.extend(made);
                names.push(path.strip_prefix(dir).unwrap_or(path).display().to_string());
            }
            Err(error) => tracing::warn!("left out {}: {error}", path.display()),
        }
    }
    if names.is_empty() {
        bail!("none of the {} pictures in {} can be read", paths.len(), dir.display());
    }
    tracing::info!(pictures = names.len(), left_out = paths.len() - names.len(), "read pictures");
    let per_picture = 3 * size * size;
    let side = i64::try_from(size).context("a picture's side is small")?;
    let mut features = Vec::new();
    for part in pixels.chunks(args.batch as usize * per_picture) {
        let part = Tensor::from_slice(part).view([-1, 3, side, side]);
        let found = no_grad(|| model.encode_image(&model.normalise(&part), false));
        features.extend(floats(&found, args.unit)?);
    }
    let count = names.len();
    Ok([
        Array {
            name: "pixels",
            dtype: Dtype::U8,
            shape: vec![count, 3, size, size],
            bytes: pixels,
        },
        feature_array("image_features", count, &features),
    ])
}

fn find_pictures(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(dir)
        .with_context(|| format!("--pictures: cannot read the folder {}", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        let extension = path.extension().and_then(|it| it.to_str()).map(str::to_ascii_lowercase);
        if path.is_dir() {
            find_pictures(&path, found)?;
        } else if matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png" | "webp")) {
            found.push(path);
        }
    }
    Ok(())
}

fn encode_captions(
    args: &EncodeArgs,
    model: &ClipModel,
    file: &Path,
) -> anyhow::Result<[Array; 2]> {
    let tokenizer = args.vocabulary.tokenizer(model)?;
    let bytes = fs::read(file)
        .with_context(|| format!("--captions: cannot read the file {}", file.display()))?;
    let text = String::from_utf8(bytes)
        .with_context(|| format!("{} is not UTF-8: convert it first", file.display()))?;
    let context = model.config().context_length();
    let mut ids = Vec::new();
    for line in text.lines() {
        ids.extend(tokenizer.encode_row(line, context));
    }
    let count = ids.len() / context;
    if count == 0 {
        bail!("{} has no lines: write one caption a line", file.display());
    }
    let vocab_size = model.config().model.text.vocab_size;
    if let Some(place) = ids.iter().position(|id| *id >= vocab_size) {
        bail!(
            "caption {} has token id {}, and model_cfg.text_cfg.vocab_size is {vocab_size}",
            place / context + 1,
            ids[place]
        );
    }
    let mut features = Vec::new();
    for part in ids.chunks(args.batch as usize * context) {
        let rows = i64::try_from(part.len() / context).context("a batch is small")?;
        let part = Tensor::from_slice(part).view([rows, -1]);
        features.extend(floats(&no_grad(|| model.encode_text(&part, false)), args.unit)?);
    }
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Ok([
        Array { name: "token_ids", dtype: Dtype::I64, shape: vec![count, context], bytes },
        feature_array("text_features", count, &features),
    ])
}

fn floats(features: &Tensor, unit: bool) -> anyhow::Result<Vec<f32>> {
    let features = if unit { unit_rows(features) } else { features.to_kind(Kind::Float) };
    let flat = features.to_device(Device::Cpu).contiguous().view([-1]);
    Vec::try_from(flat).context("features are f32")
}

fn feature_array(name: &'static str, count: usize, features: &[f32]) -> Array {
    let bytes = features.iter().flat_map(|value| value.to_le_bytes()).collect();
    Array { name, dtype: Dtype::F32, shape: vec![count, features.len() / count], bytes }
}
