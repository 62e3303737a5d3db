//! The report job: routes, combines and writes what came out, whatever it is.
//!
//! It reads the features that the evaluate jobs committed, the router, the experts' manifests and
//! the metrics; it runs the sentence encoder on class names and held-out captions, and no CLIP
//! model. `evaluate/report.json` is the report, `evaluate/report.md` a rendering of it; both are
//! written before the job's manifest, which names their digests.

mod by_cluster;
mod curves;
pub(crate) mod document;
mod facts;
mod load;
mod markdown;
mod notes;
mod scores;
mod sets;
mod setting;
mod tables;
mod words;

use clade_core::ids::{Digest, Incarnation, Stage};
use clade_core::job::Failure;
use clade_core::routing::RoutingError;
use clade_model::bert::SentenceEncoder;
use clade_store::{Part, StoreError, keys};
use serde::{Deserialize, Serialize};

use super::commit::{self, CODE_VERSION, Desk, JobManifest};
use super::evaluate::{chain, config, plain};
use crate::context::{Context, Counts, Ending};
use document::Report;
use setting::Setting;

/// Sentence embeddings of every classification set's classes.
pub(crate) const EMBEDDINGS_FILE: &str = "embeddings.safetensors";

/// Says that the report is complete, and what it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReportManifest {
    pub(crate) incarnation: Incarnation,
    /// Beside each other in the run's `evaluate` folder.
    pub(crate) json: Part,
    pub(crate) markdown: Part,
    /// In the try's folder.
    pub(crate) embeddings: Part,
    /// Digests of the manifests of evaluations, router and experts' shards.
    pub(crate) inputs: Vec<Digest>,
    pub(crate) seed: u64,
    pub(crate) spec: Digest,
    pub(crate) code_version: String,
    pub(crate) counts: Counts,
}

impl JobManifest for ReportManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Writes the report.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Report, part);
    if let Some(counts) = desk.done::<ReportManifest>()? {
        return Ok(counts);
    }
    let evaluations = evaluations(context)?;
    let router = router(context)?;
    let facts = facts::gather(context, &evaluations, &router)?;
    let setting = Setting::new(
        &context.spec,
        setting::rows(&router.centres).map_err(unroutable)?,
        &router.expert_of,
    )
    .map_err(unroutable)?;
    let folder = plain(&context.spec.spec.embedding.encoder);
    let encoder = SentenceEncoder::load(folder.as_ref())
        .map_err(|error| config(format!("spec.embedding.encoder: {}", chain(&error))))?;
    let scored = sets::score(context, &evaluations, &setting, &facts.models, &encoder)?;

    let spec = &context.spec.spec;
    let digest = commit::spec_digest(context)?;
    let mut report = Report {
        format: document::FORMAT,
        run: context.job.run.clone(),
        seed: spec.seed,
        spec: digest,
        code_version: CODE_VERSION.to_owned(),
        preset: spec.model.preset.clone(),
        global_batch: spec.training.global_batch,
        fine_clusters: spec.clusters.fine,
        experts: spec.clusters.experts,
        lambda: spec.evaluation.routing.lambda,
        models: facts.models,
        clusters: facts.clusters,
        classification: scored.classification,
        retrieval: scored.retrieval,
        notes: Vec::new(),
    };
    report.notes = notes::of(&report);
    let embeddings = desk.put(EMBEDDINGS_FILE, scored.embeddings.to_bytes())?;
    let (json, markdown) = write(context, report)?;
    let mut inputs: Vec<Digest> = evaluations.iter().map(|it| it.digest).collect();
    inputs.push(router.manifest);
    inputs.extend(facts.data);
    let counts = Counts::from([
        ("classificationSets".to_owned(), spec.evaluation.classification.len() as u64),
        ("retrievalSets".to_owned(), spec.evaluation.retrieval.len() as u64),
    ]);
    let manifest = ReportManifest {
        incarnation: context.job.incarnation,
        json,
        markdown,
        embeddings,
        inputs,
        seed: spec.seed,
        spec: digest,
        code_version: CODE_VERSION.to_owned(),
        counts,
    };
    desk.commit(&manifest)
}

/// Writes both files, unless an earlier try that died before its manifest has: then its report is
/// taken, so that what somebody may have read stays true.
fn write(context: &Context, report: Report) -> Result<(Part, Part), Ending> {
    let key = keys::report_json(&context.job.run);
    let mut bytes = serde_json::to_vec_pretty(&report)
        .map_err(|error| Failure::Data { message: format!("the report is no JSON: {error}") })?;
    bytes.push(b'\n');
    let (report, json) = match context.block_on(context.store.put_new(&key, bytes.clone())) {
        Ok(sha256) => (report, part("report.json", &bytes, sha256)),
        Err(StoreError::AlreadyExists { .. }) => {
            let bytes = context.block_on(context.store.get(&key)).map_err(Failure::from)?;
            match serde_json::from_slice(&bytes) {
                Ok(earlier) => (earlier, part("report.json", &bytes, clade_store::digest(&bytes))),
                // Written by other code: no manifest names it, so it may go.
                Err(_) => {
                    context.block_on(context.store.delete(&key)).map_err(Failure::from)?;
                    return write(context, report);
                }
            }
        }
        Err(error) => return Err(Failure::from(error).into()),
    };
    let key = keys::report_md(&context.job.run);
    let text = markdown::render(&report).into_bytes();
    let sha256 = context.block_on(context.store.put(&key, text.clone())).map_err(Failure::from)?;
    Ok((json, part("report.md", &text, sha256)))
}

fn part(name: &str, bytes: &[u8], sha256: Digest) -> Part {
    Part { name: name.to_owned(), bytes: bytes.len() as u64, sha256 }
}

/// The committed report and its manifest.
pub(crate) fn read(context: &Context) -> Result<(Report, ReportManifest, Digest), Ending> {
    let (manifest, digest) = commit::read::<ReportManifest>(context, Stage::Report, 0)?;
    let key = keys::report_json(&context.job.run);
    let bytes = context
        .block_on(context.store.get_verified(&key, &manifest.json.sha256))
        .map_err(Failure::from)?;
    let report = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Storage { message: format!("`{key}`: {error}") })?;
    Ok((report, manifest, digest))
}

pub(crate) use load::{Evaluation, OwnedRouter, evaluations, router};

fn unroutable(error: RoutingError) -> Ending {
    Failure::Data { message: format!("cannot route: {error}") }.into()
}
