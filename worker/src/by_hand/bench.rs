//! `clade-worker bench`: steps on ready batches, as many as asked for on stdin at a time, so that
//! two programs can be measured by turns. `deploy/bench/clip.py` does so.

use std::fs;
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clade_model::collective::Solo;
use clade_model::config::ClipConfig;
use clade_model::device;
use clade_model::train::{Batch, Schedule, TrainHyper, TrainOptions, Trainer};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use super::train::Line;
use super::{ComputeArgs, say, with_memory};

/// Measures training steps on ready batches, in turns with another program.
///
/// Says {"ready":true} once loaded. For each number N on stdin it trains N steps, prints a JSON line
/// for each (counted from 0) and one with the seconds of all, the device's last work included. Ends
/// with stdin.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// OpenCLIP folder to start from
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Safetensors file: `pixels` [batches, batch, 3, size, size] u8, `tokens` [batches, batch, context] i64
    #[arg(long, value_name = "FILE")]
    pub batches: PathBuf,
    /// Pairs per pass [default: the batch]
    #[arg(long)]
    pub micro_batch: Option<usize>,
    /// Compute blocks twice and keep only their inputs
    #[arg(long)]
    pub recompute: bool,
    /// Constant learning rate
    #[arg(long, default_value_t = 5e-4)]
    pub learning_rate: f64,
    #[arg(long, default_value_t = 0.2)]
    pub weight_decay: f64,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    ready: bool,
    device: String,
    parameters: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    done: u64,
    seconds: f64,
    peak_bytes: Option<u64>,
    peak_host_bytes: Option<u64>,
}

/// Carries out `clade-worker bench`.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let BenchArgs { micro_batch, recompute, learning_rate, weight_decay, .. } = args;
    let model = args.compute.load(&args.model)?;
    let batches = read_batches(&args.batches, model.config())?;
    let device = model.device();
    let parameters = model.parameter_count();
    let hyper = TrainHyper {
        peak_lr: *learning_rate,
        warmup_steps: 0,
        schedule: Schedule::Constant,
        weight_decay: *weight_decay,
        ..TrainHyper::default()
    };
    let options = TrainOptions { micro_batch: *micro_batch, recompute: *recompute, queued: false };
    let mut trainer = with_memory("making room for gradients and moments", || {
        Ok(Trainer::from_model(model, hyper).with_options(options))
    })?;
    device::reset_peak(device);
    say(&Ready { ready: true, device: device::label(device), parameters })?;
    let mut begun = 0_usize;
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read stdin")?;
        let due: u64 = line.trim().parse().with_context(|| format!("{line:?} is no number"))?;
        let mut lines = Vec::new();
        let started = Instant::now();
        let mut looked_at = started;
        for _ in 0..due {
            let batch = &batches[begun % batches.len()];
            trainer.begin(batch, &mut Solo)?;
            begun += 1;
            if trainer.in_flight() == trainer.max_in_flight() {
                lines.extend(look(&mut trainer, batch.valid.len(), &mut looked_at)?);
            }
        }
        while let Some(line) = look(&mut trainer, batches[0].valid.len(), &mut looked_at)? {
            lines.push(line);
        }
        device::synchronize(device);
        let seconds = started.elapsed().as_secs_f64();
        for line in &lines {
            say(line)?;
        }
        let peak_bytes = device::peak_bytes(device);
        say(&Done { done: due, seconds, peak_bytes, peak_host_bytes: device::host_peak() })?;
    }
    Ok(())
}

/// The outcome of the oldest step under way, if there is one.
fn look(
    trainer: &mut Trainer,
    pairs: usize,
    looked_at: &mut Instant,
) -> anyhow::Result<Option<Line>> {
    let Some(outcome) = trainer.outcome() else { return Ok(None) };
    let report = outcome?;
    let seconds = looked_at.elapsed().as_secs_f64();
    *looked_at = Instant::now();
    Ok(Some(Line {
        step: report.step - 1,
        loss: report.loss,
        logit_scale: report.logit_scale,
        lr: report.lr,
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        samples_per_second: pairs as f64 / seconds,
        grad_norm: report.grad_norm,
        masked: 0,
    }))
}

fn read_batches(path: &Path, config: &ClipConfig) -> anyhow::Result<Vec<Batch>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes)
        .with_context(|| format!("{} is not a safetensors file", path.display()))?;
    let tensor = |name: &str, dtype: Dtype| {
        let found = file.tensor(name).with_context(|| format!("{}: {name}", path.display()))?;
        if found.dtype() != dtype {
            bail!("{}: {name} is {:?}, not {dtype:?}", path.display(), found.dtype());
        }
        Ok(found)
    };
    let (pixels, tokens) = (tensor("pixels", Dtype::U8)?, tensor("tokens", Dtype::I64)?);
    let (size, context) = (config.image_size(), config.context_length());
    let &[count, batch, 3, height, width] = pixels.shape() else {
        bail!("pixels are {:?}, not [batches, batch, 3, size, size]", pixels.shape());
    };
    if (height, width) != (size, size) || tokens.shape() != [count, batch, context] {
        bail!(
            "pixels {:?} and tokens {:?} do not fit a model of {size} pixels and {context} tokens",
            pixels.shape(),
            tokens.shape()
        );
    }
    if count == 0 || batch == 0 {
        bail!("{} holds no batch", path.display());
    }
    let id = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let ids: Vec<i64> = tokens.data().chunks_exact(8).map(id).collect();
    let parts =
        pixels.data().chunks_exact(batch * 3 * size * size).zip(ids.chunks(batch * context));
    Ok(parts
        .map(|(pixels, tokens)| Batch {
            pixels: pixels.to_vec().into(),
            tokens: tokens.to_vec(),
            valid: vec![true; batch],
        })
        .collect())
}
