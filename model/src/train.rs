//! One rank's training loop body: a step of the gang's global batch.
//!
//! A step exchanges three messages: features (with token ids), their gradients (with the loss), and
//! parameter gradients. The first two are small. The third leaves out the rows of the token table
//! that no caption of the batch names, which are nought on every rank: of a small model's 32 MB,
//! some 8 remain.
//!
//! Invariants: after a step every rank holds the same bits; a step that is refused (nothing valid,
//! nothing finite) changes nothing and is refused on every rank alike.

mod exchange;
mod hyper;

use std::path::Path;

use tch::{Kind, Tensor};

use crate::adamw::{AdamW, AdamWOptions};
use crate::clip::{ClipModel, LOGIT_SCALE};
use crate::collective::{Collective, CollectiveError};
use crate::config::ClipConfig;
use crate::contrastive::{Gathered, LossShare, loss_share};
use crate::flat::Layout;
use crate::text::TOKEN_EMBEDDING;
use crate::weights::{self, WeightsError};

use exchange::{LocalFeatures, exchange_features, reduce_share};
pub use hyper::TrainHyper;

/// The largest allowed log of the inverse temperature: ln 100.
const MAX_LOGIT_SCALE: f32 = 4.605_170_2;

/// One rank's pairs of one step, as plain data. Every rank has the same number of pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[pairs, 3, size, size]`, not normalised.
    pub pixels: Vec<u8>,
    /// `[pairs, context]`
    pub tokens: Vec<i64>,
    /// `[pairs]`; a pair that could not be read keeps its slot and is false here.
    pub valid: Vec<bool>,
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
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// A model in training on one rank.
#[derive(Debug)]
pub struct Trainer {
    model: ClipModel,
    optimizer: AdamW,
    hyper: TrainHyper,
    steps_done: u64,
    /// Laid out as the parameters; rows of the token table not in `touched` are nought.
    grads: Vec<f32>,
    touched: Vec<usize>,
}

impl Trainer {
    /// Starts from a model drawn from `seed`.
    pub fn new(config: &ClipConfig, hyper: TrainHyper, seed: u64) -> Self {
        Self::from_model(ClipModel::new(config, seed), hyper)
    }

    /// Starts from given weights, with a fresh optimizer, at step 0.
    pub fn from_model(model: ClipModel, hyper: TrainHyper) -> Self {
        let layout = model.params().layout();
        let optimizer = AdamW::new(options(&hyper), layout.total(), layout.decayed().end);
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
    ) -> Result<Self, WeightsError> {
        let model = ClipModel::load(config, model)?;
        let layout = model.params().layout();
        let state = weights::read_optimizer(optimizer, layout)?;
        let decayed = layout.decayed().end;
        let optimizer =
            AdamW::with_state(options(&hyper), decayed, state.exp_avg, state.exp_avg_sq);
        Ok(Self::assemble(model, optimizer, hyper, state.step))
    }

    fn assemble(model: ClipModel, optimizer: AdamW, hyper: TrainHyper, steps_done: u64) -> Self {
        let layout = model.params().layout();
        assert_eq!(table(layout).start, 0, "the token table lies first");
        let grads = vec![0.0; layout.total()];
        Self { model, optimizer, hyper, steps_done, grads, touched: Vec::new() }
    }

    /// Writes model and optimizer; making them durable is the caller's business.
    pub fn save(&self, model: &Path, optimizer: &Path) -> Result<(), WeightsError> {
        self.model.save(model)?;
        let layout = self.model.params().layout();
        weights::write_optimizer(
            optimizer,
            layout,
            self.optimizer.exp_avg(),
            self.optimizer.exp_avg_sq(),
            self.steps_done,
        )
    }

    /// Updates done, counted from the seed model.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    pub fn model(&self) -> &ClipModel {
        &self.model
    }

    /// Trains on one global batch, of which `batch` is this rank's part.
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
        let step = self.steps_done;
        let local = self.forward(batch)?;
        let (gathered, touched) = exchange_features(&local, batch, collective)?;
        let valid_pairs = gathered.images.size()[0];
        if valid_pairs == 0 {
            return Err(StepError::NoValidPairs { step });
        }
        let log_scale = self.model.params().leaf(LOGIT_SCALE);
        let mut share = loss_share(&gathered, &log_scale);
        reduce_share(&mut share, collective)?;
        let loss = share.loss;
        if !loss.is_finite() {
            return Err(StepError::NotFinite { step, loss, grad_norm: f64::NAN });
        }
        self.backward(&local, &gathered, &share);
        self.reduce_gradients(touched, share.by_log_scale, collective)?;
        let grad_norm = self.grad_norm();
        if !grad_norm.is_finite() {
            return Err(StepError::NotFinite { step, loss, grad_norm });
        }
        let lr = self.hyper.learning_rate(step);
        self.apply(lr);
        let logit_scale = self.model.logit_scale();
        let valid_pairs = valid_pairs.unsigned_abs();
        Ok(StepReport { step: self.steps_done, loss, logit_scale, lr, grad_norm, valid_pairs })
    }

    /// Computes this rank's features, with a graph down to the parameters.
    fn forward(&self, batch: &Batch) -> Result<LocalFeatures, StepError> {
        let pairs = self.check(batch)?;
        let size = self.model.config().model.vision.image_size;
        let context = self.model.config().model.text.context_length;
        let pixels = Tensor::from_slice(&batch.pixels).view([pairs, 3, size, size]);
        let images = self.model.encode_image(&self.model.normalise(&pixels), true);
        let tokens = Tensor::from_slice(&batch.tokens).view([pairs, context]);
        let tower = self.model.text();
        let rows = tch::no_grad(|| tower.rows(&tokens)).set_requires_grad(true);
        let captions = crate::clip::unit_rows(&tower.forward_rows(&rows, &tokens));
        Ok(LocalFeatures { images, captions, tokens, rows })
    }

    fn check(&self, batch: &Batch) -> Result<i64, StepError> {
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
            None => Ok(i64::try_from(pairs).expect("a batch fits memory")),
        }
    }

    /// Takes the gradient of the features down to the parameters, into `grads`.
    fn backward(&mut self, local: &LocalFeatures, gathered: &Gathered, share: &LossShare) {
        let layout = self.model.params().layout();
        let table = table(layout);
        let width = usize::try_from(self.model.config().model.text.width).expect("validated");
        for row in self.touched.drain(..) {
            self.grads[row * width..(row + 1) * width].fill(0.0);
        }
        if gathered.own.is_empty() {
            self.grads[table.end..].fill(0.0);
            return;
        }
        let surrogate = local.surrogate(gathered, share);
        let mut places = Vec::new();
        let mut inputs = Vec::new();
        for (entry, leaf) in layout.entries().iter().zip(self.model.params().leaves()) {
            if entry.name != TOKEN_EMBEDDING && entry.name != LOGIT_SCALE {
                places.push(entry.range.clone());
                inputs.push(leaf);
            }
        }
        inputs.push(&local.rows);
        let mut found = Tensor::run_backward(&[surrogate], &inputs, false, false);
        let by_rows = found.pop().expect("one gradient per input");
        for (place, gradient) in places.into_iter().zip(&found) {
            let length = place.len();
            gradient.copy_data(&mut self.grads[place], length);
        }
        scatter_rows(&mut self.grads, &local.tokens, &by_rows, width, &mut self.touched);
    }

    /// Sums the gradients over the ranks; `touched` are the token rows of any rank.
    fn reduce_gradients(
        &mut self,
        touched: Vec<usize>,
        by_log_scale: f64,
        collective: &mut dyn Collective,
    ) -> Result<(), StepError> {
        let layout = self.model.params().layout();
        let dense = table(layout).end;
        let scale = layout.get(LOGIT_SCALE).expect("every layout has a temperature").range.start;
        if collective.world_size() > 1 {
            let width = usize::try_from(self.model.config().model.text.width).expect("validated");
            let mut message = Vec::with_capacity(touched.len() * width + self.grads.len() - dense);
            for &row in &touched {
                message.extend_from_slice(&self.grads[row * width..(row + 1) * width]);
            }
            message.extend_from_slice(&self.grads[dense..]);
            collective.all_reduce_sum(&mut message)?;
            let (rows, rest) = message.split_at(touched.len() * width);
            for (&row, values) in touched.iter().zip(rows.chunks_exact(width)) {
                self.grads[row * width..(row + 1) * width].copy_from_slice(values);
            }
            self.grads[dense..].copy_from_slice(rest);
        }
        self.touched = touched;
        #[expect(clippy::cast_possible_truncation, reason = "it was an f32 when it was summed")]
        let by_log_scale = by_log_scale as f32;
        self.grads[scale] = by_log_scale;
        Ok(())
    }

    /// The norm of the summed gradient, added up in a fixed order.
    fn grad_norm(&self) -> f64 {
        let width = usize::try_from(self.model.config().model.text.width).expect("validated");
        let dense = table(self.model.params().layout()).end;
        let square = |values: &[f32]| -> f64 {
            values
                .chunks(4096)
                .map(|part| part.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>())
                .sum()
        };
        let rows =
            self.touched.iter().map(|row| square(&self.grads[row * width..(row + 1) * width]));
        (rows.sum::<f64>() + square(&self.grads[dense..])).sqrt()
    }

    fn apply(&mut self, learning_rate: f64) {
        let scale = self.model.params().layout().get(LOGIT_SCALE);
        let scale = scale.expect("every layout has a temperature").range.start;
        self.steps_done += 1;
        let values = self.model.params_mut().values_mut();
        self.optimizer.update(values, &self.grads, self.steps_done, learning_rate);
        values[scale] = values[scale].clamp(0.0, MAX_LOGIT_SCALE);
    }
}

fn options(hyper: &TrainHyper) -> AdamWOptions {
    let &TrainHyper { beta1, beta2, eps, weight_decay, .. } = hyper;
    AdamWOptions { beta1, beta2, eps, weight_decay }
}

/// Where the token table lies in the flat buffers.
fn table(layout: &Layout) -> std::ops::Range<usize> {
    layout.get(TOKEN_EMBEDDING).expect("every layout has a token table").range.clone()
}

/// Adds the gradients of looked-up rows to the token table's gradient.
///
/// # Shapes
///
/// - `tokens`: `[batch, context]` i64
/// - `by_rows`: `[batch, context, width]`
fn scatter_rows(
    grads: &mut [f32],
    tokens: &Tensor,
    by_rows: &Tensor,
    width: usize,
    touched: &mut Vec<usize>,
) {
    let mut ids = vec![0_i64; tokens.numel()];
    let count = ids.len();
    tokens.copy_data(&mut ids, count);
    let by_rows = by_rows.contiguous().to_kind(Kind::Float);
    let rows = crate::buffer::values(&by_rows);
    for (&id, row) in ids.iter().zip(rows.chunks_exact(width)) {
        let id = usize::try_from(id).expect("ids were checked");
        for (sum, value) in grads[id * width..(id + 1) * width].iter_mut().zip(row) {
            *sum += value;
        }
        touched.push(id);
    }
    touched.sort_unstable();
    touched.dedup();
}

#[cfg(test)]
mod tests;
