//! Which pairs go into the pool of foreign pairs, and how many of each pass and owner are there.

use clade_core::order;
use clade_core::spec::RunSpec;
use clade_store::{DataShard, ForeignShard};
use serde::{Deserialize, Serialize};

use super::writer::Written;
use clade_core::ids::ModelId;

/// The pool as it is planned: the same for every job of a run.
pub(crate) struct Pool {
    seed: u64,
    /// Share of foreign pairs.
    ratio: f64,
    passes: u32,
}

/// A shard of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoolShard {
    pub(crate) shard: DataShard,
    /// Pairs by pass, and in each by the expert they belong to.
    pub(crate) by_pass: Vec<Vec<u32>>,
}

impl PoolShard {
    /// The shard as one expert sees it: without its own pairs.
    pub(crate) fn seen_by(&self, expert: usize) -> ForeignShard {
        let foreign = |owners: &Vec<u32>| {
            let others = owners.iter().enumerate().filter(|(owner, _)| *owner != expert);
            others.map(|(_, pairs)| pairs).sum()
        };
        ForeignShard {
            shard: self.shard.clone(),
            by_pass: self.by_pass.iter().map(foreign).collect(),
        }
    }
}

impl Pool {
    /// The pool of a run whose catalogue has so many pairs; none if it wants no foreign pairs.
    pub(crate) fn planned(spec: &RunSpec, pairs: u64) -> Option<Self> {
        let training = &spec.spec.training;
        let ratio = training.ooc_ratio.0;
        let experts = spec.spec.clusters.experts;
        // The dense baseline trains as long as the mean of the experts.
        let steps = spec.due(ModelId::Dense, &[]).0 - training.seed_steps;
        let batch = training.global_batch;
        let passes = order::planned_passes(ratio, steps, batch, pairs, experts);
        (ratio > 0.0).then_some(Self { seed: spec.spec.seed, ratio, passes })
    }

    /// The pass a pair is due in, if it is one of the planned ones.
    pub(super) fn pass(&self, key: &str) -> Option<u32> {
        let pass = order::foreign_pass(self.seed, key, self.ratio);
        u32::try_from(pass).ok().filter(|&pass| pass < self.passes)
    }

    /// The pool's shards with their pairs counted by pass and owner.
    pub(super) fn counted(&self, shards: Vec<Written>, experts: usize) -> Vec<PoolShard> {
        let count = |Written { shard, foreign }: Written| {
            let mut by_pass = vec![vec![0; experts]; self.passes as usize];
            for place in foreign {
                by_pass[place.pass as usize][place.owner as usize] += 1;
            }
            PoolShard { shard, by_pass }
        };
        shards.into_iter().map(count).collect()
    }
}
