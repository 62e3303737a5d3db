//! Builds a bundle's files in a folder; what each holds is described in `docs/bundle.md`.

use std::fs;
use std::path::Path;

use clade_core::ids::{Digest, ModelId};
use clade_core::job::Failure;
use clade_model::folder;
use clade_store::keys;

use super::provenance::{self, Source};
use crate::context::{Context, Ending};
use crate::stages::evaluate::arrays::{Arrays, Values};
use crate::stages::evaluate::artefact::SetKind;
use crate::stages::evaluate::{chain, disk, fetch_model, read_arrays, storage};
use crate::stages::report::document::Report;
use crate::stages::report::{self, EMBEDDINGS_FILE, OwnedRouter, ReportManifest};

const ROUTE: &str = include_str!("../../../../deploy/bundle/route.py");

/// Builds everything but the manifest; returns the digest of the report's manifest.
pub(super) fn build(context: &Context, into: &Path) -> Result<Digest, Ending> {
    let (report, report_manifest, digest) = report::read(context)?;
    let evaluations = report::evaluations(context)?;
    let router = report::router(context)?;

    let mut sources = Vec::new();
    for evaluation in &evaluations {
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        context.reporter.progress(0, evaluations.len() as u64, None);
        let at = &evaluation.manifest.model;
        let model = fetch_model(context, at)?;
        folder::save(&into.join(place(at.model)), &model)
            .map_err(|error| storage(format!("cannot write {}: {}", at.model, chain(&error))))?;
        sources.push(Source { at: at.clone(), evaluation: evaluation.digest });
    }
    let embeddings = read_embeddings(context, &report_manifest)?;
    let arrays = router_file(&report, &router, embeddings)?;
    write(into, "router.safetensors", &arrays.to_bytes())?;
    for (position, set) in evaluations.first().into_iter().flat_map(|first| {
        first
            .manifest
            .sets
            .iter()
            .enumerate()
            .filter(|(_, set)| set.kind == SetKind::Classification)
    }) {
        let mut features = Arrays::default();
        for evaluation in &evaluations {
            let set = &evaluation.manifest.sets[position];
            let mut own =
                read_arrays(context, evaluation.part, &evaluation.manifest, &set.features)?;
            if let Some(labels) = own.take("labels") {
                features.insert("labels", labels);
            }
            if matches!(evaluation.manifest.model.model, ModelId::Expert(_)) {
                features.absorb(&format!("{}.", evaluation.manifest.model.model), own);
            }
        }
        let name = format!("evaluation/classification-{}.safetensors", set.index);
        write(into, &name, &features.to_bytes())?;
    }
    write_check(context, into, &evaluations)?;

    let run = &context.job.run;
    for (name, key, part) in [
        ("report.json", keys::report_json(run), &report_manifest.json),
        ("report.md", keys::report_md(run), &report_manifest.markdown),
    ] {
        let bytes = context
            .block_on(context.store.get_verified(&key, &part.sha256))
            .map_err(Failure::from)?;
        write(into, name, &bytes)?;
    }
    write(into, "route.py", ROUTE.as_bytes())?;
    let provenance = provenance::gather(context, &report, digest, &router, &sources)?;
    let mut bytes = serde_json::to_vec_pretty(&provenance)
        .map_err(|error| storage(format!("provenance: {error}")))?;
    bytes.push(b'\n');
    write(into, "provenance.json", &bytes)?;
    Ok(digest)
}

/// Where a model's folder lies in the bundle.
fn place(model: ModelId) -> String {
    match model {
        ModelId::Seed | ModelId::Dense => model.to_string(),
        ModelId::Expert(_) => format!("experts/{model}"),
    }
}

fn read_embeddings(context: &Context, manifest: &ReportManifest) -> Result<Arrays, Ending> {
    let folder =
        keys::stage_try(&context.job.run, clade_core::ids::Stage::Report, 0, manifest.incarnation);
    let key = format!("{folder}/{EMBEDDINGS_FILE}");
    let bytes = context
        .block_on(context.store.get_verified(&key, &manifest.embeddings.sha256))
        .map_err(Failure::from)?;
    Ok(Arrays::from_bytes(&bytes).map_err(|error| storage(format!("`{key}`: {error}")))?)
}

/// Centres, their experts, and the embeddings of the report's classes.
fn router_file(report: &Report, router: &OwnedRouter, classes: Arrays) -> Result<Arrays, Ending> {
    let sets = classes.note().and_then(|note| note.get("sets")).cloned();
    let note = serde_json::json!({
        "experts": report.experts,
        "lambda": report.lambda,
        "sets": sets.unwrap_or_else(|| serde_json::json!([])),
    });
    let mut arrays = classes;
    arrays.put_matrix("fine_centres", router.centres.clone());
    let of: Vec<i64> = router.expert_of.iter().copied().map(i64::from).collect();
    arrays.put("fine_to_expert", &[of.len()], Values::I64(of));
    arrays.set_note(note);
    Ok(arrays)
}

/// A few pictures and texts with every model's features, for `make check-openclip`.
fn write_check(
    context: &Context,
    into: &Path,
    evaluations: &[report::Evaluation],
) -> Result<(), Ending> {
    let mut all = Arrays::default();
    for evaluation in evaluations {
        let Some(part) = &evaluation.manifest.check else { continue };
        let mut own = read_arrays(context, evaluation.part, &evaluation.manifest, part)?;
        for shared in ["pixels", "tokens"] {
            if let Some(array) = own.take(shared) {
                all.insert(shared, array);
            }
        }
        if let Some(note) = own.note() {
            all.set_note(note.clone());
        }
        all.absorb(&format!("{}.", place(evaluation.manifest.model.model)), own);
    }
    if all == Arrays::default() {
        return Ok(());
    }
    Ok(write(into, "openclip-check.safetensors", &all.to_bytes())?)
}

fn write(into: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let path = into.join(name);
    let folder = path.parent().unwrap_or(into);
    fs::create_dir_all(folder).map_err(|error| disk(folder, &error))?;
    fs::write(&path, bytes).map_err(|error| disk(&path, &error))
}
