//! Every key of a run, in one place.
//!
//! Whatever names a folder has no slash at its end. A key never changes meaning: tools outside
//! read these too.

use clade_core::ids::{CheckpointRef, Digest, Incarnation, ModelId, RunName, Stage, Step, WorkId};

/// Folder of everything a run leaves behind.
pub fn run(run: &RunName) -> String {
    format!("runs/{run}")
}

/// Which cluster's run this is: created once, before anything else.
pub fn cluster(run: &RunName) -> String {
    format!("runs/{run}/cluster.json")
}

/// The run document as it was understood: every default written out, every path absolute.
pub fn spec(run: &RunName) -> String {
    format!("runs/{run}/spec.json")
}

/// The run document as its user wrote it.
pub fn spec_source(run: &RunName) -> String {
    format!("runs/{run}/spec.yaml")
}

/// The input tars, found once when the run is taken in.
pub fn inputs(run: &RunName) -> String {
    format!("runs/{run}/inputs.json")
}

/// Folder of one job's artefacts.
pub fn stage_part(run: &RunName, stage: Stage, part: u32) -> String {
    format!("runs/{run}/{stage}/{part}")
}

/// The manifest whose existence says that a job is done.
pub fn stage_manifest(run: &RunName, stage: Stage, part: u32) -> String {
    format!("{}/manifest.json", stage_part(run, stage, part))
}

/// Folder of what one try of a job writes.
pub fn stage_try(run: &RunName, stage: Stage, part: u32, incarnation: Incarnation) -> String {
    format!("{}/try-{incarnation}", stage_part(run, stage, part))
}

/// The data manifest of the whole catalogue: what the seed and the dense model train on.
pub fn catalogue_manifest(run: &RunName) -> String {
    stage_manifest(run, Stage::Catalog, 0)
}

/// The data manifest of one expert.
pub fn expert_manifest(run: &RunName, expert: u32) -> String {
    format!("runs/{run}/shards/expert-{expert}/manifest.json")
}

/// The data manifest that `model` trains on.
pub fn data_manifest(run: &RunName, model: ModelId) -> String {
    match model {
        ModelId::Seed | ModelId::Dense => catalogue_manifest(run),
        ModelId::Expert(index) => expert_manifest(run, index),
    }
}

/// The manifest of fine centres and their experts; the router's own file lies where it says.
pub fn router_manifest(run: &RunName) -> String {
    stage_manifest(run, Stage::Cluster, 0)
}

/// The list of unusable pairs, by cause.
pub fn unusable(run: &RunName) -> String {
    format!("{}/unusable.json", stage_part(run, Stage::Catalog, 0))
}

/// Folder of everything the gangs of a model leave behind.
pub fn model(run: &RunName, model: ModelId) -> String {
    format!("runs/{run}/models/{model}")
}

/// Folder of what one gang of a model leaves behind.
pub fn gang(run: &RunName, model: ModelId, incarnation: Incarnation) -> String {
    format!("{}/gang-{incarnation}", self::model(run, model))
}

/// Folder of one checkpoint.
pub fn step(run: &RunName, model: ModelId, incarnation: Incarnation, step: Step) -> String {
    format!("{}/step-{step}", gang(run, model, incarnation))
}

/// Folder of one checkpoint.
pub fn checkpoint(run: &RunName, at: &CheckpointRef) -> String {
    step(run, at.model, at.incarnation, at.step)
}

/// The manifest whose existence makes a checkpoint a candidate.
pub fn checkpoint_manifest(run: &RunName, at: &CheckpointRef) -> String {
    format!("{}/manifest.json", checkpoint(run, at))
}

/// Metrics of a model as JSON lines, from `first` on.
pub fn metrics(run: &RunName, model: ModelId, incarnation: Incarnation, first: Step) -> String {
    format!("{}/metrics-{first}.jsonl", gang(run, model, incarnation))
}

/// The log of one rank of one gang, or of one try of a job.
pub fn log(run: &RunName, work: WorkId, incarnation: Incarnation, rank: u32) -> String {
    match work {
        WorkId::Model(model) => {
            format!("{}/logs/rank-{rank}.log", gang(run, model, incarnation))
        }
        WorkId::Job(job) => format!("runs/{run}/logs/{job}/try-{incarnation}.log"),
    }
}

pub fn report_md(run: &RunName) -> String {
    format!("runs/{run}/evaluate/report.md")
}

pub fn report_json(run: &RunName) -> String {
    format!("runs/{run}/evaluate/report.json")
}

/// Folder of one bundle, named by the digest of its content.
pub fn bundle(run: &RunName, digest: &Digest) -> String {
    format!("runs/{run}/bundle/{digest}")
}

/// Says which bundle is the run's.
pub fn bundle_pointer(run: &RunName) -> String {
    format!("runs/{run}/bundle/current.json")
}
