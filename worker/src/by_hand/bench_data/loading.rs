//! The loader of training over given tars, without training.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clade_core::ids::ModelId;
use clade_model::pixels::Pixels;
use clade_model::tch::Device;
use clade_pairs::index::{IndexWriter, PairRow};
use clade_pairs::loader::{Loader, Place, Shape, Stream};
use clade_pairs::pictures::Detail;
use clade_pairs::scan::{ScanOptions, scan};
use clade_store::{DataManifest, DataShard, Store, digest, find_inputs};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::say;
use super::usage::{Meter, Usage};

pub(super) const MAX_PIXELS: u64 = 64_000_000;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct LoaderArgs {
    /// Tars: a path, a glob, or a brace pattern
    #[arg(long)]
    tars: String,
    /// Pictures of a batch
    #[arg(long, default_value_t = 256)]
    batch: u32,
    /// Side of the crops in pixels
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Threads that read and decode
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Batches to measure, after one that is not
    #[arg(long, default_value_t = 8)]
    batches: u64,
    /// Decode JPEGs in full even where less would do
    #[arg(long)]
    exact: bool,
}

#[derive(Serialize)]
struct Report {
    pictures: u64,
    masked: u64,
    #[serde(flatten)]
    usage: Usage,
}

pub(super) fn run(args: &LoaderArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let store = Store::in_memory();
    let data = index(&args.tars, &store, &runtime)?;
    let place = Place { store, runtime: runtime.handle().clone(), cache: None };
    let stream = Stream {
        seed: 0,
        model: ModelId::Seed,
        global_batch: args.batch,
        rank: 0,
        ranks: 1,
        max_pixels: MAX_PIXELS,
        max_bad_share: 0.05,
    };
    let shape = Shape {
        image_size: args.size,
        tokens: Arc::new(|_: &str| Vec::new()),
        memory: Arc::new(|bytes| Pixels::for_device(bytes, Device::Cpu)),
        threads: args.threads,
        detail: if args.exact { Detail::Exact } else { Detail::Enough },
    };
    let mut loader = Loader::new(place, stream, &data, shape)?;
    let batch = u64::from(args.batch);
    loader.batch(0)?;
    let meter = Meter::start();
    let mut masked = 0;
    for step in 1..=args.batches {
        masked += loader.batch(step * batch)?.masked.values().sum::<u64>();
    }
    say(&Report { pictures: args.batches * batch, masked, usage: meter.stop() })
}

/// Lists the pairs of the tars; the index lies in `store`.
fn index(tars: &str, store: &Store, runtime: &Runtime) -> anyhow::Result<DataManifest> {
    let mut shards = Vec::new();
    for (number, tar) in find_inputs(tars)?.tars.into_iter().enumerate() {
        let mut rows = IndexWriter::new(Vec::new())?;
        let found =
            each_pair(Path::new(&tar.uri), |row| rows.push(row).map_err(std::io::Error::other))?;
        let (index, bytes) = (format!("{number}.parquet"), rows.finish()?);
        shards.push(DataShard {
            tar: tar.uri,
            in_store: false,
            index_sha256: digest(&bytes),
            index: index.clone(),
            pairs: u32::try_from(found)?,
            bytes: tar.bytes,
            sha256: None,
        });
        runtime.block_on(store.put(&index, bytes))?;
    }
    let pairs = shards.iter().map(|shard| u64::from(shard.pairs)).sum();
    Ok(DataManifest {
        pairs,
        shards,
        foreign: Vec::new(),
        inputs: Vec::new(),
        seed: 0,
        code_version: String::new(),
        counts: BTreeMap::new(),
    })
}

/// Shows `keep` every usable pair of a tar; returns how many there are.
pub(super) fn each_pair(
    tar: &Path,
    keep: impl FnMut(PairRow) -> std::io::Result<()>,
) -> anyhow::Result<u64> {
    let cannot = || format!("cannot read {}", tar.display());
    let file = File::open(tar).with_context(cannot)?;
    let (name, options) = (tar.display().to_string(), ScanOptions::new(MAX_PIXELS));
    let found = scan(&file, &name, options, keep, |_, _| true).with_context(cannot)?;
    let found = found.context("nobody asked the scan to stop")?;
    if found.pairs == 0 {
        bail!("{name}: no usable pair: {}", found.unusable.summary());
    }
    Ok(found.pairs)
}
