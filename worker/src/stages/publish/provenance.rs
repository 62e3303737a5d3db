//! Where a bundle comes from: run, data, checkpoints, code.

use std::path::Path;

use clade_core::ids::{CheckpointRef, Digest, ModelId, RunName};
use clade_core::job::Failure;
use clade_store::{DataManifest, DataShard, checkpoint, keys};
use serde::Serialize;

use super::digest_file;
use crate::context::{Context, Ending};
use crate::stages::commit::CODE_VERSION;
use crate::stages::evaluate::plain;
use crate::stages::report::OwnedRouter;
use crate::stages::report::document::Report;

/// One model's checkpoint and the manifest of its evaluation.
pub(super) struct Source {
    pub(super) at: CheckpointRef,
    pub(super) evaluation: Digest,
}

/// What `provenance.json` holds; digests are SHA-256.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Provenance {
    format: u32,
    run: RunName,
    seed: u64,
    /// Of the run's `spec.json`.
    spec: Digest,
    code_version: String,
    /// Of the report's manifest.
    report: Digest,
    /// Of the router's manifest.
    router: Digest,
    encoder: Encoder,
    catalogue: Data,
    models: Vec<Model>,
}

/// The sentence encoder that class embeddings must come from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Encoder {
    name: String,
    /// Of its `model.safetensors`.
    weights: Digest,
}

/// One model and what it was trained on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    model: ModelId,
    checkpoint: CheckpointRef,
    /// The checkpoint its last gang went on from.
    parent: Option<CheckpointRef>,
    /// Of the data manifest its trainer read.
    data: Digest,
    /// Of its evaluation's manifest.
    evaluation: Digest,
    pairs_trained_on: u64,
    /// An expert's own shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<Data>,
}

/// A data manifest in short.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    manifest: Digest,
    pairs: u64,
    shards: Vec<Shard>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shard {
    /// File name of the tar.
    name: String,
    pairs: u32,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    /// Of its index.
    index: Digest,
}

pub(super) fn gather(
    context: &Context,
    report: &Report,
    report_manifest: Digest,
    router: &OwnedRouter,
    sources: &[Source],
) -> Result<Provenance, Ending> {
    let run = &context.job.run;
    let folder = Path::new(plain(&context.spec.spec.embedding.encoder));
    let (_, weights) = digest_file(&folder.join("model.safetensors"))?;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut models = Vec::new();
    for source in sources {
        let manifest = context
            .block_on(checkpoint::read(&context.store, run, &source.at))
            .map_err(Failure::from)?;
        let id = source.at.model;
        let facts = report.models.iter().find(|facts| facts.model == id);
        models.push(Model {
            model: id,
            checkpoint: source.at.clone(),
            parent: manifest.parent,
            data: manifest.data,
            evaluation: source.evaluation,
            pairs_trained_on: facts.map_or(0, |facts| facts.pairs_trained_on),
            shards: match id {
                ModelId::Seed | ModelId::Dense => None,
                ModelId::Expert(index) => Some(data(context, &keys::expert_manifest(run, index))?),
            },
        });
    }
    Ok(Provenance {
        format: super::FORMAT,
        run: run.clone(),
        seed: report.seed,
        spec: report.spec,
        code_version: CODE_VERSION.to_owned(),
        report: report_manifest,
        router: router.manifest,
        encoder: Encoder { name: name.unwrap_or_default(), weights },
        catalogue: data(context, &keys::catalogue_manifest(run))?,
        models,
    })
}

fn data(context: &Context, key: &str) -> Result<Data, Ending> {
    let (manifest, digest) =
        context.block_on(context.store.get_manifest::<DataManifest>(key)).map_err(Failure::from)?;
    let shard = |shard: DataShard| {
        let DataShard { tar, pairs, bytes, sha256, index_sha256, .. } = shard;
        let name = tar.rsplit('/').next().unwrap_or(&tar).to_owned();
        Shard { name, pairs, bytes, sha256, index: index_sha256 }
    };
    let shards = manifest.shards.into_iter().map(shard).collect();
    Ok(Data { manifest: digest, pairs: manifest.pairs, shards })
}
