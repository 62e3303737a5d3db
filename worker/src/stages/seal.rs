//! The seal job: one data manifest per expert, and the proof that no pair was lost or doubled.

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_pairs::cause::Unusable;
use clade_store::{DataManifest, DataShard, StoreError, keys};
use serde::{Deserialize, Serialize};

use super::commit::{self, CODE_VERSION, Desk, JobManifest};
use super::shard::ShardManifest;
use crate::context::{Context, Counts, Ending};

/// Names the experts' manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SealManifest {
    /// Digest of each expert's data manifest, by expert.
    pub(crate) experts: Vec<Digest>,
    pub(crate) inputs: Vec<Digest>,
    pub(crate) seed: u64,
    pub(crate) code_version: String,
    pub(crate) counts: Counts,
}

impl JobManifest for SealManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Seals the shards of every expert.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Seal, part);
    if let Some(counts) = desk.done::<SealManifest>()? {
        return Ok(counts);
    }
    let (catalogue, catalogue_digest) = commit::read::<DataManifest>(context, Stage::Catalog, 0)?;
    let jobs = (0..context.plan.jobs(Stage::Shard))
        .map(|part| commit::read::<ShardManifest>(context, Stage::Shard, part))
        .collect::<Result<Vec<_>, Failure>>()?;
    let mut inputs = vec![catalogue_digest];
    inputs.extend(jobs.iter().map(|(_, digest)| *digest));
    let experts = (0..context.spec.spec.clusters.experts as usize)
        .map(|expert| {
            jobs.iter().flat_map(|(job, _)| &job.experts[expert]).cloned().collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    let mut unusable = Unusable::default();
    jobs.iter().for_each(|(job, _)| unusable.merge(&job.unusable));
    judge_changed(context, catalogue.pairs, &unusable)?;
    judge(context, catalogue.pairs - unusable.total(), &experts)?;

    let written = catalogue.pairs - unusable.total();
    let mut counts = Counts::from([("pairs".to_owned(), written)]);
    if unusable.total() > 0 {
        unusable.count_into(&mut counts);
    }
    let mut digests = Vec::new();
    for (expert, shards) in (0..).zip(experts) {
        let pairs = pairs_of(&shards);
        counts.insert(format!("pairs.expert-{expert}"), pairs);
        let own =
            Counts::from([("pairs".to_owned(), pairs), ("shards".to_owned(), shards.len() as u64)]);
        let pool = jobs.iter().flat_map(|(job, _)| &job.pool);
        let foreign: Vec<_> = pool.map(|shard| shard.seen_by(expert as usize)).collect();
        if !foreign.is_empty() {
            let pairs = foreign.iter().flat_map(|shard| &shard.by_pass).copied().map(u64::from);
            counts.insert(format!("foreign.expert-{expert}"), pairs.sum());
        }
        let manifest = DataManifest {
            pairs,
            shards,
            foreign,
            inputs: inputs.clone(),
            seed: context.spec.spec.seed,
            code_version: CODE_VERSION.to_owned(),
            counts: own,
        };
        digests.push(create(context, expert, &manifest)?);
    }
    context.reporter.progress(written, written, None);
    desk.commit(&SealManifest {
        experts: digests,
        inputs,
        seed: context.spec.spec.seed,
        code_version: CODE_VERSION.to_owned(),
        counts,
    })
}

/// Creates an expert's manifest. One that an earlier try made of the same shards is as good.
fn create(context: &Context, expert: u32, manifest: &DataManifest) -> Result<Digest, Failure> {
    let key = keys::expert_manifest(&context.job.run, expert);
    match context.block_on(context.store.put_manifest(&key, manifest)) {
        Ok(digest) => Ok(digest),
        Err(StoreError::AlreadyExists { .. }) => {
            let (first, digest) =
                context.block_on(context.store.get_manifest::<DataManifest>(&key))?;
            if first.shards == manifest.shards && first.foreign == manifest.foreign {
                Ok(digest)
            } else {
                Err(Failure::Data {
                    message: format!("`{key}` exists and lists other shards; start a new run"),
                })
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn pairs_of(shards: &[DataShard]) -> u64 {
    shards.iter().map(|shard| u64::from(shard.pairs)).sum()
}

/// Too many pairs that changed since they were indexed end the run, with the list.
fn judge_changed(context: &Context, catalogue: u64, unusable: &Unusable) -> Result<(), Failure> {
    let allowed = context.spec.spec.dataset.max_bad_share.0;
    let changed = unusable.total();
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share = changed as f64 / catalogue.max(1) as f64;
    if changed == 0 || share <= allowed {
        return Ok(());
    }
    let run = &context.job.run;
    let key = format!("{}/changed.json", keys::stage_part(run, Stage::Seal, 0));
    let list = serde_json::to_vec_pretty(unusable).expect("counts and texts always serialise");
    context.block_on(context.store.put(&key, list))?;
    let list = context.store.local_path(&key).map_or(key, |path| path.display().to_string());
    Err(Failure::Data {
        message: format!(
            "{changed} of {catalogue} pairs are not those that were indexed ({:.1}%, more than \
             spec.dataset.maxBadShare allows: {:.1}%); the list is in {list}; put those tars back as \
             they were and start a new run",
            100.0 * share,
            100.0 * allowed
        ),
    })
}

/// Every pair of the catalogue must be in one expert's shards, and every expert must fill a batch.
fn judge(context: &Context, catalogue: u64, experts: &[Vec<DataShard>]) -> Result<(), Failure> {
    let all: u64 = experts.iter().map(|shards| pairs_of(shards)).sum();
    if all != catalogue {
        return Err(Failure::Data {
            message: format!(
                "the experts' shards hold {all} pairs but the catalogue has {catalogue}: this is an \
                 error in Clade; do not train on these shards"
            ),
        });
    }
    let batch = u64::from(context.spec.spec.training.global_batch);
    for (expert, shards) in experts.iter().enumerate() {
        let pairs = pairs_of(shards);
        if pairs < batch {
            return Err(Failure::Config {
                message: format!(
                    "expert-{expert} has {pairs} pairs, fewer than one global batch of {batch}; use \
                     fewer experts (spec.clusters.experts), a smaller spec.training.globalBatch, \
                     another spec.seed for another clustering, or more data"
                ),
            });
        }
    }
    Ok(())
}
