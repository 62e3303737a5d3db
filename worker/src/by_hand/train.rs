//! `clade-worker train`: steps on given tars, one JSON line each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clade_model::collective::Solo;
use clade_model::folder;
use clade_model::train::{Schedule, StepError, TrainHyper, TrainOptions, Trainer};
use serde::Serialize;

use super::pairs::{Batches, Form, Loaded, find_tars};
use super::{ComputeArgs, VocabularyArgs, say};

/// So many batches in a row without a finite loss mean that data or settings are at fault.
const REFUSALS_IN_A_ROW: u32 = 3;

/// Trains a model on given tars, in tar order and without augmentation.
///
/// Pictures are prepared as for evaluation (shortest side, centre crop); of several captions the
/// first is taken; after the last tar comes the first again. One JSON line per step on stdout, with
/// the loss before the update and the rest after it:
///
///     {"step":1,"loss":4.85,"logitScale":2.6592,"lr":0.001,"samplesPerSecond":310.2,...}
///
/// The trained model is written to --out at the end, and on Ctrl-C. A batch whose loss is not finite
/// is not applied; after three in a row training stops, the last one's keys are listed in a file,
/// and no model is written.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct TrainArgs {
    /// OpenCLIP folder to start from; `clade-worker new-model` makes one
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Tars of pairs; the last part of a path may have wildcards
    #[arg(long, required = true, num_args = 1.., value_name = "TAR")]
    pub tars: Vec<String>,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Pairs per step
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Pairs per pass: less memory, same loss and gradient [default: the batch]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub micro_batch: Option<u32>,
    /// Compute blocks twice and keep only their inputs: less memory, same loss and gradient
    #[arg(long)]
    pub recompute: bool,
    /// Learning rate, or its peak
    #[arg(long, default_value_t = 5e-4)]
    pub learning_rate: f64,
    /// Steps over which the rate rises to its peak
    #[arg(long, default_value_t = 0)]
    pub warmup: u64,
    /// What the rate does then
    #[arg(long, value_enum, default_value_t = Course::Constant)]
    pub schedule: Course,
    #[arg(long, default_value_t = 0.2)]
    pub weight_decay: f64,
    #[arg(long, default_value_t = 0.9)]
    pub beta1: f64,
    #[arg(long, default_value_t = 0.98)]
    pub beta2: f64,
    #[arg(long, default_value_t = 1e-6)]
    pub eps: f64,
    /// Folder for the trained model, and for the list of a batch that could not be trained on
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A picture of more pixels is not decoded
    #[arg(long, default_value_t = 64 << 20)]
    pub max_pixels: u64,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArgs,
}

/// `constant` or `cosine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Course {
    /// Stays
    Constant,
    /// Falls as half a cosine to nought at the last step
    Cosine,
}

/// What is printed of a step.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    pub(super) step: u64,
    pub(super) loss: f64,
    pub(super) logit_scale: f64,
    pub(super) lr: f64,
    pub(super) samples_per_second: f64,
    pub(super) grad_norm: f64,
    /// Pairs of the batch that could not be read.
    pub(super) masked: u64,
}

/// Carries out `clade-worker train`.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let tars = find_tars(&args.tars)?;
    if let Some(out) = &args.out
        && out.join(folder::WEIGHTS_FILE).exists()
    {
        bail!("{} holds a model already: name another folder", out.display());
    }
    let model = args.compute.load(&args.model)?;
    let form = Form {
        tokenizer: args.vocabulary.tokenizer(&model)?,
        config: model.config().clone(),
        batch: args.batch as usize,
        max_pixels: args.max_pixels,
    };
    let batches = Batches::of(tars, form)?;
    let options = TrainOptions {
        micro_batch: args.micro_batch.map(|it| it as usize),
        recompute: args.recompute,
        queued: false,
    };
    let trainer = Trainer::from_model(model, args.hyper()).with_options(options);
    let mut training = Training { args, trainer, refusals: 0, under_way: Vec::new() };
    let stop = stop_on_signal()?;
    training.go(&batches, &stop)?;
    if let Some(out) = &args.out {
        folder::save(out, training.trainer.model())?;
        tracing::info!("wrote {}", out.display());
    }
    Ok(())
}

impl TrainArgs {
    fn hyper(&self) -> TrainHyper {
        TrainHyper {
            peak_lr: self.learning_rate,
            warmup_steps: self.warmup,
            schedule: match self.schedule {
                Course::Constant => Schedule::Constant,
                Course::Cosine => Schedule::Cosine,
            },
            total_steps: self.steps,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
        }
    }
}

struct Training<'a> {
    args: &'a TrainArgs,
    trainer: Trainer,
    refusals: u32,
    /// Keys of the steps under way, and when each began.
    under_way: Vec<(Vec<String>, Instant)>,
}

impl Training<'_> {
    fn go(&mut self, batches: &Batches, stop: &AtomicBool) -> anyhow::Result<()> {
        let due = self.args.steps;
        let mut looked_at = Instant::now();
        while self.trainer.steps_done() < due {
            let is_stopping = stop.load(Ordering::Relaxed);
            let begun = self.trainer.steps_done() + self.trainer.in_flight() as u64;
            if is_stopping && self.trainer.in_flight() == 0 {
                tracing::warn!(step = self.trainer.steps_done(), "stopped before its last step");
                return Ok(());
            }
            if begun < due && !is_stopping {
                let started = Instant::now();
                let Loaded { batch, keys } = batches.next()?;
                self.trainer.begin(&batch, &mut Solo)?;
                self.under_way.push((keys, started));
                if self.trainer.in_flight() < self.trainer.max_in_flight() {
                    continue;
                }
            }
            self.look(&mut looked_at)?;
        }
        Ok(())
    }

    /// Reports the oldest step under way.
    fn look(&mut self, looked_at: &mut Instant) -> anyhow::Result<()> {
        let outcome = self.trainer.outcome().context("a step is under way")?;
        let (keys, started) = self.under_way.remove(0);
        let began = started.max(*looked_at);
        *looked_at = Instant::now();
        match outcome {
            Ok(report) => {
                self.refusals = 0;
                let seconds = looked_at.duration_since(began).as_secs_f64();
                say(&Line {
                    step: report.step,
                    loss: report.loss,
                    logit_scale: report.logit_scale,
                    lr: report.lr,
                    samples_per_second: f64::from(self.args.batch) / seconds,
                    grad_norm: report.grad_norm,
                    masked: u64::from(self.args.batch).saturating_sub(report.valid_pairs),
                })
            }
            Err(error @ (StepError::NotFinite { .. } | StepError::NoValidPairs { .. })) => {
                self.refuse(&error, &keys)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn refuse(&mut self, error: &StepError, keys: &[String]) -> anyhow::Result<()> {
        self.refusals += 1;
        tracing::warn!(refusals = self.refusals, "a batch was refused: {error}");
        if self.refusals < REFUSALS_IN_A_ROW {
            return Ok(());
        }
        let folder = self.args.out.as_deref().unwrap_or(Path::new("."));
        let file = folder.join(format!("refused-after-{}.json", self.trainer.steps_done()));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&file, serde_json::to_vec_pretty(keys)?))
            .with_context(|| format!("cannot write {}", file.display()))?;
        bail!(
            "{REFUSALS_IN_A_ROW} batches in a row were refused, the last because {error}; its pairs \
             are listed in {}: look at them, or lower --learning-rate; no model was written",
            file.display()
        )
    }
}

/// Set by the first SIGINT or SIGTERM; the second ends the process at once.
fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};

    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Ends with the process.
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let (Ok(mut interrupted), Ok(mut terminated)) = signals else { return };
            loop {
                tokio::select! {
                    _ = interrupted.recv() => (),
                    _ = terminated.recv() => (),
                }
                if told.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
                tracing::warn!("stopping after the step under way; once more to stop at once");
            }
        });
    })?;
    Ok(stop)
}
