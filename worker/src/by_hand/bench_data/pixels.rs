//! Training crops decoded in full and at reduced size, to tell how far they are apart.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clade_core::order::Choices;
use clade_pairs::index::PairRow;
use clade_pairs::pictures::{Darkroom, Detail, drawn_crop};
use clade_store::find_inputs;
use safetensors::{Dtype, tensor::TensorView};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::loading::{MAX_PIXELS, each_pair};
use super::say;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct PixelsArgs {
    /// Tars: a path, a glob, or a brace pattern
    #[arg(long)]
    tars: String,
    /// Side of the crops in pixels
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Pairs to crop, the first of the tars
    #[arg(long, default_value_t = 64)]
    pairs: usize,
    /// Safetensors file to write: `exact` and `fast` [pairs, 3, size, size] u8, `boxes` [pairs, 4] i32
    /// (left, top, width, height), the keys in its metadata
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    pairs: usize,
}

pub(super) fn run(args: &PixelsArgs) -> anyhow::Result<()> {
    let PixelsArgs { size, pairs, out, .. } = args;
    let (mut exact, mut fast, mut boxes, mut keys) = (vec![], vec![], vec![], vec![]);
    let mut darkroom = Darkroom::new();
    for tar in find_inputs(&args.tars)?.tars {
        let path = Path::new(&tar.uri);
        let mut rows: Vec<PairRow> = Vec::new();
        each_pair(path, |row| {
            rows.push(row);
            Ok(())
        })?;
        let file = File::open(path).with_context(|| format!("cannot read {}", tar.uri))?;
        for row in rows.into_iter().take(pairs - keys.len()) {
            let mut bytes = vec![0; row.length as usize];
            file.read_exact_at(&mut bytes, row.offset).context("a pair that was just found")?;
            let draw = xxh3_64(&Choices::new(0, 0, &row.key).crop[0].to_le_bytes());
            for (detail, pixels) in [(Detail::Exact, &mut exact), (Detail::Enough, &mut fast)] {
                let start = pixels.len();
                pixels.resize(start + 3 * size * size, 0);
                let made = &mut pixels[start..];
                darkroom
                    .train_pixels_into(&bytes, MAX_PIXELS, *size, draw, detail, made)
                    .with_context(|| format!("pair {}", row.key))?;
            }
            let crop = drawn_crop((row.width, row.height), draw);
            boxes.extend([crop.left, crop.top, crop.width, crop.height]);
            keys.push(row.key);
        }
    }
    if keys.is_empty() {
        bail!("--tars {}: no usable pair", args.tars);
    }
    let boxes: Vec<u8> = boxes.iter().flat_map(|side| side.to_le_bytes()).collect();
    let pixels = [keys.len(), 3, *size, *size];
    let tensors = [
        ("exact", TensorView::new(Dtype::U8, pixels.to_vec(), &exact)?),
        ("fast", TensorView::new(Dtype::U8, pixels.to_vec(), &fast)?),
        ("boxes", TensorView::new(Dtype::I32, vec![keys.len(), 4], &boxes)?),
    ];
    let metadata = HashMap::from([("keys".to_owned(), serde_json::to_string(&keys)?)]);
    let file = safetensors::serialize(tensors, Some(metadata))?;
    std::fs::write(out, file).with_context(|| format!("--out {}", out.display()))?;
    say(&Report { pairs: keys.len() })
}
