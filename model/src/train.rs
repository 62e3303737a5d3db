//! One rank's training loop body: a step of the gang's global batch.
//!
//! A step exchanges features (with token ids), their gradients (with the loss), and parameter
//! gradients, in buckets and while the backward pass goes on. The first two are small. The last leave
//! out the rows of the token table that no caption of the batch names, which are nought on every rank:
//! of a small model's 32 MB, some 8 remain.
//!
//! On a GPU a gang of one is never waited for within a step: whether the update is applied is
//! decided there, and [`Trainer::outcome`] of a step is best asked for after the next has begun.
//!
//! Invariants: after a step every rank holds the same bits; a step that is refused (nothing valid,
//! nothing finite) changes nothing and is refused on every rank alike. All ranks of a gang compute on
//! devices of one kind: a CPU and a GPU exchange the same messages only while nothing is refused.

mod buckets;
mod exchange;
mod gradients;
mod hyper;
mod passes;
mod pending;
mod snapshot;
mod update;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use tch::Tensor;

use crate::adamw::{AdamW, AdamWOptions};
use crate::chain::Keep;
use crate::clip::{ClipModel, LOGIT_SCALE};
use crate::collective::{Collective, CollectiveError};
use crate::config::ClipConfig;
use crate::contrastive::{Gathered, LossShare, loss_share};
use crate::device::Placement;
use crate::fallible;
use crate::memory::{MemoryShape, OutOfMemory};
use crate::native::{self, NativeError};
use crate::pixels::Pixels;
use crate::weights::{self, WeightsError};

use buckets::{Plan, Reducer};
use exchange::{LocalFeatures, exchange_features, reduce_share};
use gradients::Gradients;
pub use hyper::{Schedule, TrainHyper};
use passes::{Micro, Trace};
use pending::Pending;
pub use snapshot::Snapshot;
use snapshot::copied;
use update::number_on;

/// Steps that may be queued on a GPU and not yet looked at.
const MAX_IN_FLIGHT: usize = 2;

/// One rank's pairs of one step, as plain data. Every rank has the same number of pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[pairs, 3, size, size]`, not normalised.
    pub pixels: Pixels,
    /// `[pairs, context]`
    pub tokens: Vec<i64>,
    /// `[pairs]`; a pair that could not be read keeps its slot and is false here.
    pub valid: Vec<bool>,
}

/// How a step is computed. None of it changes the loss or the gradient beyond rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainOptions {
    /// Pairs of one pass; none: the rank's whole batch.
    pub micro_batch: Option<usize>,
    /// Keep only the blocks' inputs between the passes, and compute the rest twice.
    pub recompute: bool,
    /// Decide and update by queued tensor operations even on the CPU; a GPU does so always.
    pub queued: bool,
}

/// What one step did; the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StepReport {
    /// Updates done, this one included, counted from the seed model.
    pub step: u64,
    /// Of the global batch before the update, in nats.
    pub loss: f64,
    /// Natural log of the inverse temperature after the update.
    pub logit_scale: f64,
    pub lr: f64,
    /// Of all parameters' gradient.
    pub grad_norm: f64,
    pub valid_pairs: u64,
}

/// Why a step was not applied.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("step {step} has loss {loss} and gradient norm {grad_norm}: not applied")]
    NotFinite { step: u64, loss: f64, grad_norm: f64 },
    #[error("step {step} has no valid pair: not applied")]
    NoValidPairs { step: u64 },
    #[error("the batch's {field} hold {found} values where {expected} are due")]
    Batch { field: &'static str, expected: usize, found: usize },
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    Token { id: i64, vocab_size: i64 },
    #[error("{0}")]
    OutOfMemory(OutOfMemory),
    #[error("libtorch: {0}")]
    Torch(String),
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

impl From<NativeError> for StepError {
    fn from(error: NativeError) -> Self {
        Self::Torch(error.to_string())
    }
}

/// A model in training on one rank.
#[derive(Debug)]
pub struct Trainer {
    model: ClipModel,
    optimizer: AdamW,
    hyper: TrainHyper,
    options: TrainOptions,
    /// Updates known to be done.
    steps_done: u64,
    gradients: Gradients,
    buckets: Arc<Plan>,
    /// `[]` f32: updates done, as the device counts them; where updates are queued.
    device_step: Option<Tensor>,
    /// Steps begun whose outcome was not asked for yet, oldest first.
    pending: VecDeque<Pending>,
}

impl Trainer {
    /// Starts from a model drawn from `seed`, in f32 on the CPU.
    pub fn new(config: &ClipConfig, hyper: TrainHyper, seed: u64) -> Self {
        Self::from_model(ClipModel::new(config, seed), hyper)
    }

    /// Starts from given weights, with a fresh optimizer, at step 0.
    pub fn from_model(model: ClipModel, hyper: TrainHyper) -> Self {
        let layout = model.params().layout();
        let (total, decayed) = (layout.total(), layout.decayed().end);
        let optimizer = AdamW::new(options(&hyper), total, decayed, model.device());
        Self::assemble(model, optimizer, hyper, 0)
    }

    /// Goes on where [`Self::save`] left off.
    ///
    /// Steps and schedule go on too: `hyper.total_steps` counts from the seed model.
    pub fn load(
        config: &ClipConfig,
        hyper: TrainHyper,
        model: &Path,
        optimizer: &Path,
        placement: Placement,
    ) -> Result<Self, WeightsError> {
        let model = ClipModel::load_at(config, model, placement)?;
        let layout = model.params().layout();
        let state = weights::read_optimizer(optimizer, layout)?;
        let decayed = layout.decayed().end;
        let (first, second) = (&state.exp_avg, &state.exp_avg_sq);
        let optimizer =
            AdamW::with_state(options(&hyper), decayed, first, second, placement.device);
        Ok(Self::assemble(model, optimizer, hyper, state.step))
    }

    fn assemble(model: ClipModel, optimizer: AdamW, hyper: TrainHyper, steps_done: u64) -> Self {
        let is_queued = model.device().is_cuda();
        let gradients = gradients_of(&model, is_queued);
        let buckets = Arc::new(Plan::new(&model));
        let mut trainer = Self {
            model,
            optimizer,
            hyper,
            options: TrainOptions::default(),
            steps_done,
            gradients,
            buckets,
            device_step: None,
            pending: VecDeque::new(),
        };
        if is_queued {
            trainer.count_on_device();
        }
        trainer
    }

    /// Sets how steps are computed from now on.
    #[must_use]
    pub fn with_options(mut self, options: TrainOptions) -> Self {
        if options.queued && self.device_step.is_none() {
            self.gradients = gradients_of(&self.model, true);
            self.count_on_device();
        }
        self.options = options;
        self
    }

    fn count_on_device(&mut self) {
        self.device_step = Some(number_on(self.model.device(), self.steps_done as f64));
    }

    /// Writes model and optimizer; making them durable is the caller's business.
    ///
    /// # Panics
    ///
    /// If a step was begun whose [`Self::outcome`] was not asked for.
    pub fn save(&self, model: &Path, optimizer: &Path) -> Result<(), WeightsError> {
        assert!(self.pending.is_empty(), "a step is under way");
        self.model.save(model)?;
        let layout = self.model.params().layout();
        let (first, second) = self.optimizer.to_host();
        let (first, second) = (native::values(&first), native::values(&second));
        weights::write_optimizer(optimizer, layout, first, second, self.steps_done)
    }

    /// Sets aside what [`Self::save`] would write: training can go on while it is written.
    ///
    /// # Panics
    ///
    /// If a step was begun whose [`Self::outcome`] was not asked for.
    pub fn snapshot(&self) -> Snapshot {
        assert!(self.pending.is_empty(), "a step is under way");
        let params = self.model.params();
        let [first, second] = self.optimizer.moments().map(copied);
        Snapshot {
            layout: Arc::new(params.layout().clone()),
            values: copied(params.masters()),
            first,
            second,
            step: self.steps_done,
        }
    }

    /// Updates known to be done, counted from the seed model.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    pub fn model(&self) -> &ClipModel {
        &self.model
    }

    /// Trains on one global batch, of which `batch` is this rank's part, and waits for it.
    ///
    /// # Errors
    ///
    /// After `NotFinite` and `NoValidPairs` the trainer is as before, on every rank; after any
    /// other error the gang is out of step and must restart.
    pub fn step(
        &mut self,
        batch: &Batch,
        collective: &mut dyn Collective,
    ) -> Result<StepReport, StepError> {
        assert!(self.pending.is_empty(), "the outcome of an earlier step was not asked for");
        self.begin(batch, collective)?;
        self.outcome().expect("a step was begun")
    }

    /// How many steps may be under way before one must be looked at: more than one on a GPU, which
    /// then never waits for the next step.
    pub fn max_in_flight(&self) -> usize {
        if self.device_step.is_some() { MAX_IN_FLIGHT } else { 1 }
    }

    /// Steps begun whose [`Self::outcome`] was not asked for.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Begins a step; on a GPU it is queued and goes on while the caller prepares the next.
    ///
    /// # Errors
    ///
    /// What prevents the step from being computed at all. Whether it was applied, [`Self::outcome`]
    /// tells.
    pub fn begin(
        &mut self,
        batch: &Batch,
        collective: &mut dyn Collective,
    ) -> Result<(), StepError> {
        assert!(self.pending.len() < self.max_in_flight(), "an outcome must be asked for first");
        let pairs = self.check(batch)?;
        let micro_batch = self.options.micro_batch.unwrap_or(pairs).clamp(1, pairs);
        let shape = MemoryShape {
            precision: self.model.placement().precision,
            recompute: self.options.recompute,
            rank_batch: pairs,
            global_batch: pairs * collective.world_size(),
            micro_batch,
        };
        let begun = fallible::catch(|| self.compute(batch, micro_batch, collective));
        let said = match begun {
            Ok(Err(StepError::Torch(said))) | Err(said) => said,
            Ok(result) => return result,
        };
        if !fallible::is_out_of_memory(&said) {
            return Err(StepError::Torch(said));
        }
        let (config, parameters) = (&self.model.config().model, self.model.parameter_count());
        let device = self.model.device();
        Err(StepError::OutOfMemory(OutOfMemory::new(config, parameters, shape, device, &said)))
    }

    /// The outcome of the oldest step under way; waits for it. None if there is none.
    pub fn outcome(&mut self) -> Option<Result<StepReport, StepError>> {
        let outcome = match self.pending.pop_front()? {
            Pending::Known(outcome) => outcome,
            Pending::Queued(queued) => queued.read(self.steps_done, &self.hyper),
        };
        if outcome.is_ok() {
            self.steps_done += 1;
        }
        Some(outcome)
    }

    fn compute(
        &mut self,
        batch: &Batch,
        micro_batch: usize,
        collective: &mut dyn Collective,
    ) -> Result<(), StepError> {
        let (micros, local, trace) = self.forward(batch, micro_batch)?;
        let (gathered, touched) = exchange_features(&local, batch, collective)?;
        let valid_pairs = gathered.images.size()[0].unsigned_abs();
        if valid_pairs == 0 {
            let refused = StepError::NoValidPairs { step: self.steps_done };
            self.pending.push_back(Pending::Known(Err(refused)));
            return Ok(());
        }
        let mut share = loss_share(&gathered, &self.model.params().master(LOGIT_SCALE));
        reduce_share(&mut share, collective)?;
        if self.device_step.is_none() {
            let (step, loss) = (self.steps_done, share.loss.double_value(&[]));
            if !loss.is_finite() {
                let refused = StepError::NotFinite { step, loss, grad_norm: f64::NAN };
                self.pending.push_back(Pending::Known(Err(refused)));
                return Ok(());
            }
        }
        let (buckets, is_flat) = (Arc::clone(&self.buckets), self.gradients.flat().is_some());
        buckets::reduce(&buckets, touched, collective, is_flat, |reducer| {
            self.backward(&micros, &local, trace, &gathered, &share, reducer)?;
            Ok(reducer.finish(&mut self.gradients)?)
        })?;
        let scale = self.model.params().layout().index(LOGIT_SCALE);
        let scale = scale.expect("every layout has a temperature");
        self.gradients.set_scalar(scale, &share.by_log_scale);
        if self.device_step.is_some() {
            self.apply_queued(&share.loss, valid_pairs)
        } else {
            self.apply(share.loss.double_value(&[]), valid_pairs);
            Ok(())
        }
    }

    /// Computes this rank's features, and keeps the last micro-batch's way back to the parameters.
    fn forward(
        &self,
        batch: &Batch,
        micro_batch: usize,
    ) -> Result<(Vec<Micro>, LocalFeatures, Option<Trace>), NativeError> {
        let pairs = batch.valid.len();
        let ranges = (0..pairs).step_by(micro_batch).map(|at| at..(at + micro_batch).min(pairs));
        let micros: Vec<Micro> = ranges
            .map(|range| Micro::upload(&self.model, &batch.pixels, &batch.tokens, range))
            .collect::<Result<_, _>>()?;
        let mut trace = None;
        let (mut images, mut captions) = (Vec::new(), Vec::new());
        for (index, micro) in micros.iter().enumerate() {
            let is_last = index + 1 == micros.len();
            let features = if is_last {
                let (features, kept) = micro.forward(&self.model, self.keep());
                trace = Some(kept);
                features
            } else {
                micro.features(&self.model)
            };
            images.push(features.images);
            captions.push(features.captions);
        }
        let whole = |parts: &[Tensor]| match parts {
            [whole] => whole.shallow_clone(),
            parts => Tensor::cat(parts, 0),
        };
        let local = LocalFeatures { images: whole(&images), captions: whole(&captions) };
        Ok((micros, local, trace))
    }

    const fn keep(&self) -> Keep {
        if self.options.recompute { Keep::Inputs } else { Keep::Graphs }
    }

    fn check(&self, batch: &Batch) -> Result<usize, StepError> {
        let (size, context) =
            (self.model.config().image_size(), self.model.config().context_length());
        let pairs = batch.valid.len();
        for (field, expected, found) in [
            ("valid flags", pairs.max(1), pairs),
            ("pixels", pairs * 3 * size * size, batch.pixels.len()),
            ("tokens", pairs * context, batch.tokens.len()),
        ] {
            if expected != found {
                return Err(StepError::Batch { field, expected, found });
            }
        }
        let vocab_size = self.model.config().model.text.vocab_size;
        match batch.tokens.iter().find(|id| !(0..vocab_size).contains(*id)) {
            Some(&id) => Err(StepError::Token { id, vocab_size }),
            None => Ok(pairs),
        }
    }

    /// Takes the gradient of the features down to the parameters, and hands it on where it is done.
    fn backward(
        &mut self,
        micros: &[Micro],
        local: &LocalFeatures,
        mut trace: Option<Trace>,
        gathered: &Gathered,
        share: &LossShare,
        reducer: &mut Reducer<'_>,
    ) -> Result<(), StepError> {
        self.gradients.clear();
        if gathered.own.is_empty() {
            return Ok(());
        }
        let by_features = local.own_gradients(gathered, share);
        for (at, micro) in micros.iter().enumerate().rev() {
            let start = i64::try_from(micro.range.start).expect("a batch fits memory");
            let length = i64::try_from(micro.range.len()).expect("a batch fits memory");
            let by_own = [0, 1].map(|side: usize| by_features[side].narrow(0, start, length));
            let kept = trace.take();
            let kept = kept.unwrap_or_else(|| micro.forward(&self.model, self.keep()).1);
            let done = (at == 0).then_some(&mut *reducer);
            micro.backward(&self.model, kept, by_own, &mut self.gradients, done)?;
        }
        Ok(())
    }
}

fn gradients_of(model: &ClipModel, is_flat: bool) -> Gradients {
    let width = model.config().model.text.blocks.width;
    Gradients::new(model.params().layout(), width, model.device(), is_flat)
}

fn options(hyper: &TrainHyper) -> AdamWOptions {
    let &TrainHyper { beta1, beta2, eps, weight_decay, .. } = hyper;
    AdamWOptions { beta1, beta2, eps, weight_decay }
}

#[cfg(test)]
mod tests;
