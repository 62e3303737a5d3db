//! One line per step, as it is written to the store.

use clade_model::train::StepReport;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// What one step did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StepLine {
    /// Updates done, this one included, counted from the seed model.
    pub(super) step: u64,
    /// Of the global batch before the update, in nats.
    pub(super) loss: f64,
    /// Natural log of the inverse temperature after the update.
    pub(super) logit_scale: f64,
    pub(super) lr: f64,
    pub(super) grad_norm: f64,
    pub(super) pairs_per_second: f64,
    /// Digest of the keys of the global batch, in order.
    pub(super) keys: String,
    /// Epoch of the batch's first pair.
    pub(super) epoch: u64,
    /// Pairs of the batch that could not be read.
    pub(super) masked: u64,
}

/// A batch whose update was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefusedLine {
    /// Updates done before it.
    pub(super) after_step: u64,
    pub(super) refused: String,
    pub(super) keys: String,
    pub(super) epoch: u64,
}

impl StepLine {
    pub(super) fn new(
        report: &StepReport,
        batch: u32,
        seconds: f64,
        keys: &[String],
        epoch: u64,
    ) -> Self {
        Self {
            step: report.step,
            loss: report.loss,
            logit_scale: report.logit_scale,
            lr: report.lr,
            grad_norm: report.grad_norm,
            pairs_per_second: f64::from(batch) / seconds,
            keys: digest(keys),
            epoch,
            masked: u64::from(batch).saturating_sub(report.valid_pairs),
        }
    }
}

/// 16 hexadecimal digits that tell batches apart.
pub(super) fn digest(keys: &[String]) -> String {
    let mut hasher = Xxh3::new();
    for key in keys {
        hasher.update(key.as_bytes());
        hasher.update(&[0]);
    }
    format!("{:016x}", hasher.digest())
}
