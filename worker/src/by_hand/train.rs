//! `clade-worker train`: steps on given tars, one JSON line each.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{anyhow, bail};
use clade_model::collective::Solo;
use clade_model::folder;
use clade_model::train::{Schedule, StepError, TrainHyper, TrainOptions, Trainer};
use nix::sys::signal::{Signal, raise};
use serde::Serialize;

use super::pairs::{Batches, Form, Loaded, find_tars};
use super::{ComputeArgs, VocabularyArgs, check_writable, say, with_memory};

/// So many batches in a row without a finite loss mean that data or settings are at fault.
const REFUSALS_IN_A_ROW: u32 = 3;
/// Exit status of what a signal stopped, as shells have it for SIGINT.
const STOPPED: u8 = 130;

const LONG_ABOUT: &str = r#"Trains a model on given tars, in tar order and without augmentation.

Pictures are prepared as for evaluation (shortest side, centre crop); of several captions the
first is taken; after the last tar comes the first again. One JSON line per step on stdout, with
the loss before the update and the rest after it:

    {"step":1,"loss":4.85,"logitScale":2.6582,"lr":0.001,"samplesPerSecond":310.2,...}

Pairs that cannot be used (no caption, no readable picture) are left out and told of on stderr.
The trained model is written to --out at the end; also on Ctrl-C, with exit status 130, and when
reading on fails, with exit status 1. A batch whose loss is not finite
is not applied; after three in a row training stops, the last one's keys are listed in a file,
and no model is written."#;

/// Trains a model on given tars, in tar order and without augmentation.
#[derive(Clone, Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub struct TrainArgs {
    /// OpenCLIP folder to start from; `clade-worker new-model` makes one
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Tars of pairs; the last part of a path may have wildcards
    #[arg(long, required = true, num_args = 1.., value_name = "TAR")]
    pub tars: Vec<String>,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Pairs per step, at least two: the others are each one's negatives
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
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
    #[arg(long, value_enum, default_value_t = Shape::Constant)]
    pub schedule: Shape,
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
pub enum Shape {
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
pub fn run(args: &TrainArgs) -> anyhow::Result<ExitCode> {
    args.check()?;
    let tars = find_tars(&args.tars)?;
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
    let trainer = with_memory("making room for gradients and moments", || {
        Ok(Trainer::from_model(model, args.hyper()).with_options(options))
    })?;
    let mut training = Training { args, trainer, refusals: 0, under_way: VecDeque::new() };
    let stop = stop_on_signal()?;
    let ended = training.go(&batches, &stop);
    let is_worth_saving = match &ended {
        Ok(_) => true,
        Err(end) => end.is_worth_saving,
    };
    let is_worth_saving = is_worth_saving && training.trainer.steps_done() > 0;
    if is_worth_saving && let Some(out) = &args.out {
        folder::save(out, training.trainer.model())?;
        tracing::info!(step = training.trainer.steps_done(), "wrote {}", out.display());
    }
    match ended {
        Ok(Finish::Done) => Ok(ExitCode::SUCCESS),
        Ok(Finish::Stopped) => {
            tracing::warn!(step = training.trainer.steps_done(), "stopped before its last step");
            Ok(ExitCode::from(STOPPED))
        }
        Err(end) => Err(end.why),
    }
}

/// How training ended well.
enum Finish {
    Done,
    Stopped,
}

/// How it ended otherwise.
struct End {
    why: anyhow::Error,
    /// Whether what was trained until then is sound.
    is_worth_saving: bool,
}

impl End {
    fn sound(why: impl Into<anyhow::Error>) -> Self {
        Self { why: why.into(), is_worth_saving: true }
    }

    fn broken(why: impl Into<anyhow::Error>) -> Self {
        Self { why: why.into(), is_worth_saving: false }
    }
}

impl TrainArgs {
    /// Finds what would spoil the run before it begins.
    fn check(&self) -> anyhow::Result<()> {
        let Self { learning_rate, weight_decay, beta1, beta2, eps, out, .. } = self;
        for (option, value, is_sound, bound) in [
            ("--learning-rate", learning_rate, (0.0..=1e3).contains(learning_rate), "0 to 1000"),
            ("--weight-decay", weight_decay, (0.0..=1e3).contains(weight_decay), "0 to 1000"),
            ("--beta1", beta1, (0.0..1.0).contains(beta1), "at least 0 and below 1"),
            ("--beta2", beta2, (0.0..1.0).contains(beta2), "at least 0 and below 1"),
            ("--eps", eps, *eps > 0.0 && *eps <= 1.0, "above 0 and at most 1"),
        ] {
            if !is_sound {
                bail!("{option} {value} is no use: give a number {bound}");
            }
        }
        let Some(out) = out else { return Ok(()) };
        let weights = out.join(folder::WEIGHTS_FILE);
        if weights.exists() {
            bail!("{} holds a model already: name another folder", out.display());
        }
        check_writable(&weights)
    }

    fn hyper(&self) -> TrainHyper {
        TrainHyper {
            peak_lr: self.learning_rate,
            warmup_steps: self.warmup,
            schedule: match self.schedule {
                Shape::Constant => Schedule::Constant,
                Shape::Cosine => Schedule::Cosine,
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
    under_way: VecDeque<(Vec<String>, Instant)>,
}

impl Training<'_> {
    fn go(&mut self, batches: &Batches, stop: &AtomicBool) -> Result<Finish, End> {
        let due = self.args.steps;
        let mut looked_at = Instant::now();
        while self.trainer.steps_done() < due {
            let is_stopping = stop.load(Ordering::Relaxed);
            let begun = self.trainer.steps_done() + self.trainer.in_flight() as u64;
            if is_stopping && self.trainer.in_flight() == 0 {
                return Ok(Finish::Stopped);
            }
            if begun < due && !is_stopping {
                let started = Instant::now();
                let next = batches.next();
                if next.is_err() {
                    // What is under way still counts.
                    while self.trainer.in_flight() > 0 {
                        self.look(&mut looked_at)?;
                    }
                }
                let Loaded { batch, keys } = next.map_err(End::sound)?;
                self.trainer.begin(&batch, &mut Solo).map_err(End::broken)?;
                self.under_way.push_back((keys, started));
                if self.trainer.in_flight() < self.trainer.max_in_flight() {
                    continue;
                }
            }
            self.look(&mut looked_at)?;
        }
        Ok(Finish::Done)
    }

    /// Reports the oldest step under way.
    fn look(&mut self, looked_at: &mut Instant) -> Result<(), End> {
        let outcome = self.trainer.outcome().expect("a step is under way");
        let (keys, started) = self.under_way.pop_front().expect("its keys are known");
        let began = started.max(*looked_at);
        *looked_at = Instant::now();
        match outcome {
            Ok(report) => {
                self.refusals = 0;
                let seconds = looked_at.duration_since(began).as_secs_f64();
                let line = Line {
                    step: report.step,
                    loss: report.loss,
                    logit_scale: report.logit_scale,
                    lr: report.lr,
                    samples_per_second: f64::from(self.args.batch) / seconds,
                    grad_norm: report.grad_norm,
                    masked: u64::from(self.args.batch).saturating_sub(report.valid_pairs),
                };
                say(&line).map_err(End::sound)
            }
            Err(error @ (StepError::NotFinite { .. } | StepError::NoValidPairs { .. })) => {
                self.refuse(&error, &keys)
            }
            Err(error) => Err(End::broken(error)),
        }
    }

    fn refuse(&mut self, error: &StepError, keys: &[String]) -> Result<(), End> {
        self.refusals += 1;
        tracing::warn!(refusals = self.refusals, "a batch was refused: {error}");
        if self.refusals < REFUSALS_IN_A_ROW {
            return Ok(());
        }
        let folder = self.args.out.as_deref().unwrap_or(Path::new("."));
        let file = folder.join(format!("refused-after-{}.json", self.trainer.steps_done()));
        let listed = fs::create_dir_all(folder)
            .and_then(|()| fs::write(&file, serde_json::to_vec_pretty(keys)?))
            .map_or_else(
                |error| format!("could not be listed in {}: {error}", file.display()),
                |()| format!("are listed in {}", file.display()),
            );
        Err(End::broken(anyhow!(
            "{REFUSALS_IN_A_ROW} batches in a row were refused, the last because {error}; its pairs \
             {listed}: look at them, or lower --learning-rate; no model was written"
        )))
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
                    // Not an exit: its handlers would run under libtorch's threads.
                    let _: Result<(), _> = raise(Signal::SIGKILL);
                }
                tracing::warn!("stopping after the step under way; once more to stop at once");
            }
        });
    })?;
    Ok(stop)
}
