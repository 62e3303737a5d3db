//! The rules of a run document that can be judged without looking at the data.

use super::widths::all_widths;
use super::{ExpertSteps, RunSpec, Share, Spec};

impl RunSpec {
    pub(super) fn validate(&self) -> Result<(), String> {
        let Spec { store, clusters, training, gangs, model, evaluation, .. } = &self.spec;
        if !["file:", "s3://", "gs://", "az://"].iter().any(|scheme| store.starts_with(scheme)) {
            return Err(format!(
                "spec.store: `{store}` is not supported; write `file:` and a path, or \
                 `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`"
            ));
        }
        let positive = [
            ("spec.clusters.fine", u64::from(clusters.fine)),
            ("spec.clusters.experts", u64::from(clusters.experts)),
            ("spec.training.globalBatch", u64::from(training.global_batch)),
            ("spec.training.microBatch", u64::from(training.micro_batch)),
            ("spec.training.seedSteps", training.seed_steps),
            ("spec.training.checkpoint.keep", u64::from(training.checkpoint.keep)),
            ("spec.gangs.seed.ranks", u64::from(gangs.seed.ranks)),
            ("spec.gangs.expert.ranks", u64::from(gangs.expert.ranks)),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key}: must be at least 1"));
        }
        if clusters.fine < clusters.experts {
            return Err(format!(
                "spec.clusters.fine: {} fine centres cannot be divided among {} experts",
                clusters.fine, clusters.experts
            ));
        }
        if clusters.sample < u64::from(clusters.fine) {
            return Err(format!(
                "spec.clusters.sample: {} pairs cannot form {} fine clusters",
                clusters.sample, clusters.fine
            ));
        }
        if !(clusters.balance.is_finite() && clusters.balance >= 0.0) {
            return Err("spec.clusters.balance: must be a number of at least 0".to_owned());
        }
        if training.global_batch % training.micro_batch != 0 {
            return Err(format!(
                "spec.training.microBatch: {} does not divide globalBatch {}",
                training.micro_batch, training.global_batch
            ));
        }
        let parts = training.global_batch / training.micro_batch;
        for (key, gang) in [("seed", &gangs.seed), ("expert", &gangs.expert)] {
            let least = gang.min_ranks.iter().map(|ranks| ("minRanks", *ranks));
            for (field, ranks) in least.chain([("ranks", gang.ranks)]) {
                if ranks == 0 {
                    return Err(format!("spec.gangs.{key}.{field}: must be at least 1"));
                }
                if field == "minRanks" && ranks > gang.ranks {
                    return Err(format!(
                        "spec.gangs.{key}.minRanks: {ranks} is more than ranks, which is {}",
                        gang.ranks
                    ));
                }
                if parts % ranks != 0 {
                    let can = all_widths(parts, 1_024);
                    return Err(format!(
                        "spec.gangs.{key}.{field}: {ranks} ranks cannot share the {parts} \
                         micro-batches of globalBatch / microBatch evenly; {can} can"
                    ));
                }
            }
        }
        match training.expert_steps {
            ExpertSteps::Equal(0) | ExpertSteps::Proportional { proportional: 0 } => {
                return Err("spec.training.expertSteps: must be at least 1".to_owned());
            }
            ExpertSteps::Equal(_) | ExpertSteps::Proportional { .. } => (),
        }
        if training.ooc_ratio > Share(0.5) {
            return Err("spec.training.oocRatio: must be at most 50%; 2% is usual".to_owned());
        }
        if !(training.learning_rate.peak.is_finite() && training.learning_rate.peak > 0.0) {
            return Err("spec.training.learningRate.peak: must be above 0".to_owned());
        }
        if !(training.weight_decay.is_finite() && training.weight_decay >= 0.0) {
            return Err("spec.training.weightDecay: must be at least 0".to_owned());
        }
        if model.preset.is_empty() {
            return Err("spec.model.preset: must name a preset".to_owned());
        }
        if !(evaluation.routing.lambda.is_finite() && evaluation.routing.lambda > 0.0) {
            return Err("spec.evaluation.routing.lambda: must be above 0".to_owned());
        }
        Ok(())
    }
}
