//! `clade-worker bench`: steps on ready batches, as many as asked for on stdin at a time, so that
//! two programs can be measured by turns. `deploy/bench/clip.py` does so.

use std::fs;
use std::io::{self, BufRead as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clade_core::order::Random;
use clade_core::rendezvous::Rendezvous;
use clade_model::collective::{Collective, Solo};
use clade_model::config::ClipConfig;
use clade_model::device;
use clade_model::tch::Device;
use clade_model::train::{Batch, Schedule, TrainHyper, TrainOptions, Trainer};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use super::saver::Saver;
use super::train::Line;
use super::{ComputeArgs, say, with_memory};
use crate::collective::{Exchange, Meeting, OnGpus, Patience, Place, Secret, join};

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
    #[arg(long, value_name = "FILE", required_unless_present = "synthetic")]
    pub batches: Option<PathBuf>,
    /// Batches of so many pairs of noise instead, the same on every rank
    #[arg(long, value_name = "PAIRS", conflicts_with = "batches")]
    pub synthetic: Option<NonZeroUsize>,
    #[command(flatten)]
    pub seat: SeatArgs,
    /// Pairs per pass [default: the batch]
    #[arg(long)]
    pub micro_batch: Option<usize>,
    /// Compute blocks twice and keep only their inputs
    #[arg(long)]
    pub recompute: bool,
    /// Save into this folder meanwhile, as a rank does: copied between two steps, written beside the next
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// The longest time between two of them
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub save_every: Duration,
    /// Constant learning rate
    #[arg(long, default_value_t = 5e-4)]
    pub learning_rate: f64,
    #[arg(long, default_value_t = 0.2)]
    pub weight_decay: f64,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// This process's place in a gang; each takes its part of every batch.
#[derive(Clone, Debug, clap::Args)]
pub struct SeatArgs {
    /// This one's number
    #[arg(long, default_value_t = 0)]
    pub rank: u32,
    /// Processes that train together; each says the samples of its own part
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks: u32,
    /// `address:port`, where rank 0 listens and the others call; needed if there are several
    #[arg(long, value_name = "ADDRESS")]
    pub meet: Option<String>,
}

impl SeatArgs {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let &Self { rank, ranks, ref meet } = self;
        if rank >= ranks {
            bail!(
                "--rank {rank} does not exist among {ranks} ranks: --ranks says how many there are"
            );
        }
        match (ranks, meet) {
            (1, Some(_)) => bail!("--meet is for several ranks, and --ranks says one"),
            (2.., None) => bail!("--meet: {ranks} ranks must be told where to meet"),
            (_, None) | (_, Some(_)) => Ok(()),
        }
    }

    /// Waits for the others; among GPUs, they exchange by NCCL if all of them have it. Says how they exchange.
    /// One that stands still for longer than `peers` is given up.
    pub(super) fn gather(
        &self,
        device: Device,
        peers: Duration,
    ) -> anyhow::Result<(Box<dyn Collective>, String)> {
        let &Self { rank, ranks, ref meet } = self;
        let Some(meet) = meet.as_deref() else {
            return Ok((Box::new(Solo), "alone".to_owned()));
        };
        let (meets, patience) = (Rendezvous::from(meet), Patience::new(PATIENCE, Arc::default()));
        let (place, secret) =
            (Place { fence: "bench".to_owned(), rank, ranks }, Secret::of(&meets));
        let mut ring = if rank == 0 {
            Meeting::listen(meets.address())?.host(&place, &secret, &patience)?
        } else {
            join(meets.address(), &place, &secret, &patience)?
        };
        ring.give_up_after(peers);
        Ok(match OnGpus::bring_up(ring, device)? {
            Exchange::ByNccl(gpus) => {
                let how = format!("{gpus:?}");
                (gpus as Box<dyn Collective>, how)
            }
            Exchange::ThroughHost { ring, why } => {
                let why =
                    why.map_or_else(|| "another rank has no NCCL".to_owned(), |it| it.to_string());
                (Box::new(ring), format!("through host memory: {why}"))
            }
        })
    }

    /// This rank's part of a batch.
    fn part(&self, batch: &Batch, pairs: usize) -> anyhow::Result<Batch> {
        let [rank, ranks] = [self.rank, self.ranks].map(|it| usize::try_from(it).unwrap_or(1));
        if !pairs.is_multiple_of(ranks) {
            bail!("{ranks} ranks cannot share batches of {pairs} pairs evenly");
        }
        let share = |values: usize| values / ranks * rank..values / ranks * (rank + 1);
        Ok(Batch {
            pixels: batch.pixels[share(batch.pixels.len())].to_vec().into(),
            tokens: batch.tokens[share(batch.tokens.len())].to_vec(),
            valid: batch.valid[share(batch.valid.len())].to_vec(),
        })
    }
}

/// How long ranks wait for each other at the start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Batches of noise until they begin anew.
const SYNTHETIC: usize = 8;

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
    /// Checkpoints begun so far, and the seconds in which they kept this rank from training.
    saves: u32,
    stood_still: f64,
}

/// Carries out `clade-worker bench`.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    args.seat.check()?;
    let BenchArgs { micro_batch, recompute, learning_rate, weight_decay, .. } = args;
    let model = args.compute.load(&args.model)?;
    let batches = match (&args.batches, args.synthetic) {
        (Some(path), _) => read_batches(path, model.config())?,
        (None, pairs) => noise(pairs.map_or(1, NonZeroUsize::get), model.config()),
    };
    let batches: Vec<Batch> = batches
        .iter()
        .map(|batch| args.seat.part(batch, batch.valid.len()))
        .collect::<anyhow::Result<_>>()?;
    let device = model.device();
    let (mut collective, exchange) = args.seat.gather(device, PATIENCE)?;
    tracing::info!(exchange, "the ranks are together");
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
    let saver = args.save.as_deref();
    let saver = saver.map(|folder| Saver::new(folder, args.save_every, args.seat.ranks));
    let mut saver = saver.transpose()?;
    let mut begun = 0_usize;
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read stdin")?;
        let due: u64 = line.trim().parse().with_context(|| format!("{line:?} is no number"))?;
        let mut lines = Vec::new();
        let started = Instant::now();
        let mut looked_at = started;
        for _ in 0..due {
            let batch = &batches[begun % batches.len()];
            trainer.begin(batch, &mut *collective)?;
            begun += 1;
            if trainer.in_flight() == trainer.max_in_flight() {
                lines.extend(look(&mut trainer, batch.valid.len(), &mut looked_at)?);
            }
            if let Some(saver) = saver.as_mut().filter(|_| trainer.in_flight() == 0) {
                saver.between_steps(&trainer)?;
            }
        }
        while let Some(line) = look(&mut trainer, batches[0].valid.len(), &mut looked_at)? {
            lines.push(line);
        }
        device::synchronize(device);
        // What is under way is this round's to pay for.
        saver.as_mut().map_or(Ok(()), Saver::settle)?;
        let seconds = started.elapsed().as_secs_f64();
        for line in &lines {
            say(line)?;
        }
        let peak_bytes = device::peak_bytes(device);
        say(&Done {
            done: due,
            seconds,
            peak_bytes,
            peak_host_bytes: device::host_peak(),
            saves: saver.as_ref().map_or(0, |saver| saver.saves),
            stood_still: saver.as_ref().map_or(0.0, |saver| saver.stood_still.as_secs_f64()),
        })?;
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

/// Pictures of noise, and captions of lengths as on the web, about 15 tokens.
fn noise(pairs: usize, config: &ClipConfig) -> Vec<Batch> {
    let (size, context) = (config.image_size(), config.context_length());
    let mut random = Random::new(7);
    let end = config.model.text.vocab_size - 1;
    let mut caption = || {
        let longest = context.saturating_sub(2).max(1) as u64;
        let words = (4 + random.below(19)).min(longest);
        let mut row = vec![end - 1];
        row.extend(
            (0..words).map(|_| i64::try_from(random.below(40_000)).unwrap_or(0) % (end - 1)),
        );
        row.push(end);
        row.resize(context, 0);
        row
    };
    let mut batches = Vec::new();
    for _ in 0..SYNTHETIC {
        let tokens = (0..pairs).flat_map(|_| caption()).collect();
        batches.push(Batch { tokens, valid: vec![true; pairs], ..Batch::default() });
    }
    for batch in &mut batches {
        let values = (0..pairs * 3 * size * size).map(|_| random.below(256).to_le_bytes()[0]);
        batch.pixels = values.collect::<Vec<u8>>().into();
    }
    batches
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
