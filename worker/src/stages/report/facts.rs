//! What is known of models and clusters without looking at a picture.

use clade_core::ids::{CheckpointRef, Digest, ModelId, RunName};
use clade_core::job::Failure;
use clade_core::spec::RunSpec;
use clade_store::{DataManifest, keys};

use super::curves::{self, CurveEnd};
use super::document::{ClusterFacts, ModelFacts};
use super::load::{self, Evaluation, OwnedRouter};
use super::words::WordCounts;
use crate::context::{Context, Ending};

/// Telling words per cluster.
const WORDS: usize = 8;

pub(crate) struct Facts {
    pub(crate) models: Vec<ModelFacts>,
    pub(crate) clusters: Vec<ClusterFacts>,
    /// Digests of the experts' data manifests.
    pub(crate) data: Vec<Digest>,
}

pub(crate) fn gather(
    context: &Context,
    evaluations: &[Evaluation],
    router: &OwnedRouter,
) -> Result<Facts, Ending> {
    let mut models = Vec::new();
    for evaluation in evaluations {
        let at = &evaluation.manifest.model;
        models.push(model(&context.spec, at, curves::end(context, at)?));
    }
    let experts = context.spec.spec.clusters.experts;
    let mut manifests = Vec::new();
    let mut data = Vec::new();
    let mut words = WordCounts::new(usize::try_from(experts).expect("a u32 fits in usize"));
    for expert in 0..experts {
        let (manifest, digest) = data_manifest(context, &context.job.run, expert)?;
        load::captions(context, &manifest, |captions| {
            let captions = captions.iter().map(String::as_str);
            words.add(usize::try_from(expert).expect("a u32 fits in usize"), captions);
        })?;
        manifests.push(manifest);
        data.push(digest);
    }
    let all: u64 = manifests.iter().map(|manifest| manifest.pairs).sum();
    let clusters = (0..)
        .zip(manifests.iter().zip(words.telling(WORDS)))
        .map(|(expert, (manifest, words))| ClusterFacts {
            model: ModelId::Expert(expert),
            pairs: manifest.pairs,
            share: share(manifest.pairs, all),
            fine_clusters: router.expert_of.iter().map(|of| u32::from(*of == expert)).sum(),
            words,
        })
        .collect();
    Ok(Facts { models, clusters, data })
}

fn data_manifest(
    context: &Context,
    run: &RunName,
    expert: u32,
) -> Result<(DataManifest, Digest), Ending> {
    let key = keys::expert_manifest(run, expert);
    Ok(context.block_on(context.store.get_manifest(&key)).map_err(Failure::from)?)
}

/// Pairs are counted as passed through: steps times the global batch, whatever repeats.
fn model(spec: &RunSpec, at: &CheckpointRef, end: CurveEnd) -> ModelFacts {
    let batch = u64::from(spec.spec.training.global_batch);
    let before = match at.model {
        ModelId::Seed => 0,
        ModelId::Dense | ModelId::Expert(_) => spec.spec.training.seed_steps,
    };
    let own_steps = at.step.0.saturating_sub(before);
    ModelFacts {
        model: at.model,
        step: at.step,
        own_steps,
        own_pairs: own_steps * batch,
        pairs_trained_on: at.step.0 * batch,
        final_loss: end.loss,
        final_loss_steps: end.steps,
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of pairs are below 2^53")]
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}
