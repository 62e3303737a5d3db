//! What the report reads from earlier stages.

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_pairs::index;
use clade_store::DataManifest;

use crate::context::{Context, Ending};
use crate::stages::evaluate::arrays::Matrix;
use crate::stages::evaluate::artefact::EvaluateManifest;
use crate::stages::{cluster, commit};

/// One model's committed evaluation.
pub(crate) struct Evaluation {
    /// The evaluate job's part.
    pub(crate) part: u32,
    pub(crate) manifest: EvaluateManifest,
    pub(crate) digest: Digest,
}

/// Every model's evaluation, in the order of the run's models.
///
/// All of them must have seen the same sets: a set that changed on disk in between would put
/// numbers of different tasks into one table.
pub(crate) fn evaluations(context: &Context) -> Result<Vec<Evaluation>, Ending> {
    let mut found: Vec<Evaluation> = Vec::new();
    for part in 0..context.plan.jobs(Stage::Evaluate) {
        let (manifest, digest) = commit::read::<EvaluateManifest>(context, Stage::Evaluate, part)?;
        if let Some(first) = found.first()
            && let Some(changed) = changed(&first.manifest, &manifest)
        {
            return Err(Failure::Data {
                message: format!(
                    "evaluation set {changed} changed between the evaluations of {} and {}; \
                     put it back and run under another name",
                    first.manifest.model.model, manifest.model.model
                ),
            }
            .into());
        }
        found.push(Evaluation { part, manifest, digest });
    }
    Ok(found)
}

/// The first set that two evaluations saw differently.
fn changed(first: &EvaluateManifest, other: &EvaluateManifest) -> Option<String> {
    let longer = if first.sets.len() < other.sets.len() { other } else { first };
    (0..longer.sets.len())
        .find(|&index| {
            let of = |it: &EvaluateManifest| {
                it.sets.get(index).map(|set| (set.texts.sha256, set.tars.clone()))
            };
            of(first) != of(other)
        })
        .map(|index| longer.sets[index].name.clone())
}

/// The router that the cluster stage committed.
#[derive(Clone, Debug)]
pub(crate) struct OwnedRouter {
    /// Fine centres, unit rows.
    pub(crate) centres: Matrix,
    /// The expert of each fine centre.
    pub(crate) expert_of: Vec<u32>,
    /// Digest of the cluster stage's manifest.
    pub(crate) manifest: Digest,
}

pub(crate) fn router(context: &Context) -> Result<OwnedRouter, Ending> {
    let (router, manifest) = cluster::read_router(context)?;
    let centres = Matrix {
        rows: router.fine_to_expert.len(),
        width: router.width,
        values: router.fine_centres,
    };
    Ok(OwnedRouter { centres, expert_of: router.fine_to_expert, manifest })
}

/// Shows `visit` the captions of every pair of a data manifest.
pub(super) fn captions(
    context: &Context,
    manifest: &DataManifest,
    mut visit: impl FnMut(&[String]),
) -> Result<(), Ending> {
    for shard in &manifest.shards {
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        let bytes = context
            .block_on(context.store.get_verified(&shard.index, &shard.index_sha256))
            .map_err(Failure::from)?;
        let rows = index::decode(&shard.index, bytes).map_err(Failure::from)?;
        rows.iter().for_each(|row| visit(&row.captions));
    }
    Ok(())
}
