//! The evaluate job: encodes every evaluation set with one model.
//!
//! It writes features, not scores: weights and tables are the report's business, so a routing rule
//! can be added later without encoding a picture again. Features are unit rows in f32. What could
//! not be used is counted by cause, listed, and left out; above the run's `maxBadShare` the job
//! fails with that list, since a score over half a set is no score.
//!
//! Artefacts lie in the try's folder; the manifest is created last.

pub(crate) mod arrays;
pub(crate) mod artefact;
mod encode;
#[cfg(test)]
pub(crate) mod fixture;
mod folder;
mod groups;

use std::path::Path;

use clade_core::ids::{CheckpointRef, Stage};
use clade_core::job::Failure;
use clade_model::clip::ClipModel;
use clade_model::config::ClipConfig;
use clade_model::tokenizer::Tokenizer;
use clade_store::{checkpoint, keys};

use super::commit::{self, CODE_VERSION, Desk};
use crate::context::{Context, Counts, Ending};
use arrays::Arrays;
use artefact::{EvaluateManifest, SetArtefact, SetKind};
use encode::{Encoded, Encoder};
use folder::Folder;

pub(crate) use encode::fill;
pub(crate) use folder::{lines, plain};

/// The part of a checkpoint that holds the model itself.
const MODEL_FILE: &str = "model.safetensors";
/// Pixels, token ids and features of a few pictures and texts, for comparing with OpenCLIP.
pub(crate) const CHECK_FILE: &str = "check.safetensors";

/// Encodes the run's evaluation sets with the model that this job is for.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Evaluate, part);
    if let Some(counts) = desk.done::<EvaluateManifest>()? {
        return Ok(counts);
    }
    let id = context
        .plan
        .evaluated(part)
        .ok_or_else(|| config(format!("the run has no model for evaluate.{part}")))?;
    let sets = &context.spec.spec.evaluation;
    let folders = open_all(&sets.classification, SetKind::Classification)?
        .into_iter()
        .chain(open_all(&sets.retrieval, SetKind::Retrieval)?)
        .collect::<Vec<_>>();
    let at = context.job.models.get(&id).ok_or_else(|| {
        config(format!("the job file names no checkpoint of {id} under `models`"))
    })?;
    let model = fetch_model(context, at)?;
    let tokenizer = tokenizer(context)?;

    let total = folders.iter().try_fold(0, |sum, folder| folder.pictures().map(|n| sum + n))?;
    let mut encoder = Encoder::new(context, &model, &tokenizer, total);
    let mut artefacts = Vec::new();
    for folder in &folders {
        let encoded = match folder.kind {
            SetKind::Classification => encoder.classification(folder)?,
            SetKind::Retrieval => encoder.retrieval(folder)?,
        };
        judge(context, folder, &encoded)?;
        artefacts.push(write_set(&desk, folder, encoded)?);
    }
    let check =
        encoder.check().map(|arrays| desk.put(CHECK_FILE, arrays.to_bytes())).transpose()?;

    let mut counts = Counts::new();
    for set in &artefacts {
        *counts.entry("pictures".to_owned()).or_default() += set.pictures;
        for (cause, number) in &set.unusable {
            *counts.entry(format!("unusable.{cause}")).or_default() += number;
        }
    }
    let manifest = EvaluateManifest {
        model: at.clone(),
        incarnation: context.job.incarnation,
        sets: artefacts,
        check,
        seed: context.spec.spec.seed,
        spec: commit::spec_digest(context)?,
        code_version: CODE_VERSION.to_owned(),
        counts,
    };
    desk.commit(&manifest)
}

/// Opens every folder before anything is computed, so that a wrong path costs no time.
fn open_all(paths: &[String], kind: SetKind) -> Result<Vec<Folder>, Failure> {
    (0..).zip(paths).map(|(index, path)| Folder::open(path, kind, index)).collect()
}

/// Fetches a checkpoint, proves its digests and builds the model.
pub(crate) fn fetch_model(context: &Context, at: &CheckpointRef) -> Result<ClipModel, Ending> {
    let folder = context.scratch.join(format!("checkpoint-{}", at.model));
    std::fs::create_dir_all(&folder).map_err(|error| disk(&folder, &error))?;
    context
        .block_on(checkpoint::fetch(&context.store, &context.job.run, at, &folder))
        .map_err(Failure::from)?;
    let config = ClipConfig::preset(&context.spec.spec.model.preset)
        .map_err(|error| config(format!("spec.model.preset: {error}")))?;
    let model = ClipModel::load_at(&config, &folder.join(MODEL_FILE), context.placement()?)
        .map_err(|error| storage(format!("{at}: {}", chain(&error))))?;
    std::fs::remove_dir_all(&folder).map_err(|error| disk(&folder, &error))?;
    Ok(model)
}

fn tokenizer(context: &Context) -> Result<Tokenizer, Failure> {
    let path = plain(&context.spec.spec.model.vocabulary);
    Tokenizer::from_file(Path::new(path))
        .map_err(|error| config(format!("spec.model.vocabulary: {}", chain(&error))))
}

/// Refuses a set of which too much is unusable, or nothing usable.
fn judge(context: &Context, folder: &Folder, encoded: &Encoded) -> Result<(), Failure> {
    let bad: u64 = encoded.unusable.values().sum();
    let all = bad + encoded.pictures;
    let limit = context.spec.spec.dataset.max_bad_share.0;
    #[expect(clippy::cast_precision_loss, reason = "numbers of pictures are below 2^53")]
    let too_many = bad as f64 > limit * all as f64;
    if encoded.pictures > 0 && !too_many {
        return Ok(());
    }
    let causes: Vec<String> =
        encoded.unusable.iter().map(|(cause, number)| format!("{number} {cause}")).collect();
    let some: Vec<String> =
        encoded.examples.iter().take(20).map(|it| format!("{} ({})", it.key, it.cause)).collect();
    Err(Failure::Data {
        message: format!(
            "evaluation set {}: {bad} of {all} pictures are unusable [{}]; look at {}",
            folder.path.display(),
            causes.join(", "),
            if some.is_empty() { "its tars".to_owned() } else { some.join(", ") },
        ),
    })
}

fn write_set(desk: &Desk<'_>, folder: &Folder, encoded: Encoded) -> Result<SetArtefact, Failure> {
    let Encoded { features, texts, pictures, texts_count, unusable, examples, tars } = encoded;
    let stem = format!("{}-{}", folder.kind, folder.index);
    Ok(SetArtefact {
        kind: folder.kind,
        index: folder.index,
        name: folder.name.clone(),
        features: desk.put(&format!("{stem}.safetensors"), features.to_bytes())?,
        texts: desk.put(&format!("{stem}.json"), texts)?,
        pictures,
        texts_count,
        unusable,
        examples,
        tars,
    })
}

/// Reads one artefact of a committed evaluation and proves its digest.
pub(crate) fn read_part(
    context: &Context,
    part: u32,
    manifest: &EvaluateManifest,
    file: &clade_store::Part,
) -> Result<bytes::Bytes, Ending> {
    let folder = keys::stage_try(&context.job.run, Stage::Evaluate, part, manifest.incarnation);
    let key = format!("{folder}/{}", file.name);
    Ok(context.block_on(context.store.get_verified(&key, &file.sha256)).map_err(Failure::from)?)
}

/// The same, as tensors.
pub(crate) fn read_arrays(
    context: &Context,
    part: u32,
    manifest: &EvaluateManifest,
    file: &clade_store::Part,
) -> Result<Arrays, Ending> {
    let bytes = read_part(context, part, manifest, file)?;
    Ok(Arrays::from_bytes(&bytes).map_err(|error| storage(format!("{}: {error}", file.name)))?)
}

pub(crate) fn config(message: String) -> Failure {
    Failure::Config { message }
}

pub(crate) fn storage(message: String) -> Failure {
    Failure::Storage { message }
}

pub(crate) fn disk(path: &Path, error: &std::io::Error) -> Failure {
    storage(format!("{}: {error}", path.display()))
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests;
