//! What one model is to do: its configuration, its data, and the step at which it is done.

use clade_core::ids::{Digest, ModelId, Stage};
use clade_core::job::Failure;
use clade_core::order;
use clade_core::spec::{ExpertSteps, RunSpec, all_widths, expert_pairs};
use clade_model::config::ClipConfig;
use clade_model::device::Placement;
use clade_model::train::{TrainHyper, TrainOptions};
use clade_store::{DataManifest, keys};
use serde::Deserialize;

use crate::context::{Context, Counts};

#[derive(Debug)]
pub(super) struct Course {
    pub(super) model: ModelId,
    pub(super) config: ClipConfig,
    pub(super) hyper: TrainHyper,
    pub(super) placement: Placement,
    pub(super) options: TrainOptions,
    pub(super) global_batch: u32,
    /// Of this gang.
    pub(super) ranks: u32,
    /// How it makes sums over its ranks, once it has met.
    pub(super) sums: &'static str,
    /// The step at which this model's own stream of pairs begins.
    pub(super) from: u64,
    /// The step at which it is done.
    pub(super) due: u64,
    pub(super) data: DataManifest,
    pub(super) data_digest: Digest,
    pub(super) spec_digest: Digest,
}

impl Course {
    pub(super) fn plot(context: &Context, model: ModelId) -> Result<Self, Failure> {
        let Context { job, spec, store, .. } = context;
        let config = ClipConfig::preset(&spec.spec.model.preset)
            .map_err(|error| Failure::Config { message: error.to_string() })?;
        let training = &spec.spec.training;
        let global_batch = training.global_batch;
        let parts = spec.micro_batches();
        if !parts.is_multiple_of(job.ranks) {
            let (ranks, can) = (job.ranks, all_widths(parts, 1_024));
            return Err(Failure::Config {
                message: format!(
                    "{ranks} ranks cannot share the {parts} micro-batches of a batch of {global_batch} \
                     evenly; {can} can"
                ),
            });
        }
        let data_key = keys::data_manifest(&job.run, model);
        let (data, data_digest) =
            context.block_on(store.get_manifest::<DataManifest>(&data_key))?;
        if data.pairs < u64::from(global_batch) {
            return Err(Failure::Data {
                message: format!(
                    "{model} has {} pairs, fewer than one batch of {global_batch}: lower \
                     training.globalBatch or clusters.experts",
                    data.pairs
                ),
            });
        }
        let (_, spec_digest) =
            context.block_on(store.get_manifest::<RunSpec>(&keys::spec(&job.run)))?;
        let from = match model {
            ModelId::Seed => 0,
            ModelId::Dense | ModelId::Expert(_) => training.seed_steps,
        };
        let due = spec.due(model, &pairs_of_experts(context, model)?).0;
        let hyper = TrainHyper {
            peak_lr: training.learning_rate.peak,
            warmup_steps: training.learning_rate.warmup,
            // An expert's schedule ends with its own last step, whatever its share of the steps.
            total_steps: match model {
                ModelId::Seed => spec.schedule_steps(),
                ModelId::Dense | ModelId::Expert(_) => due,
            },
            weight_decay: training.weight_decay,
            ..TrainHyper::default()
        };
        let options = TrainOptions {
            micro_batch: usize::try_from(training.micro_batch).ok(),
            recompute: training.recompute,
            queued: false,
        };
        Ok(Self {
            model,
            config,
            hyper,
            placement: context.placement()?,
            options,
            global_batch,
            ranks: job.ranks,
            sums: "none",
            from,
            due,
            data,
            data_digest,
            spec_digest,
        })
    }

    /// Pairs of this model's stream that so many steps consume, if no batch is refused.
    pub(super) fn cursor_at(&self, step: u64) -> u64 {
        let own = clade_core::ids::Step(step.saturating_sub(self.from));
        order::cursor(own, self.global_batch)
    }
}

/// Pairs of every expert, where the due step depends on them.
fn pairs_of_experts(context: &Context, model: ModelId) -> Result<Vec<u64>, Failure> {
    /// What every stage's manifest holds.
    #[derive(Deserialize)]
    struct Counted {
        counts: Counts,
    }

    let spec = &context.spec.spec;
    match (model, spec.training.expert_steps) {
        (ModelId::Expert(_), ExpertSteps::Proportional { .. }) => {
            let key = keys::stage_manifest(&context.job.run, Stage::Seal, 0);
            let read = context.store.get_manifest::<Counted>(&key);
            let (Counted { counts }, _) = context.block_on(read)?;
            Ok(expert_pairs(&counts, spec.clusters.experts))
        }
        (ModelId::Seed | ModelId::Dense, _) | (ModelId::Expert(_), ExpertSteps::Equal(_)) => {
            Ok(Vec::new())
        }
    }
}
