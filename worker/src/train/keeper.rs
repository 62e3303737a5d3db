//! Rank 0's pen: checkpoints and metrics.
//!
//! A checkpoint is copied in memory between two steps, and written to the scratch folder and uploaded while
//! training goes on, at most one at a time: parts, then the metrics up to it, then the manifest. Only then
//! is it reported. An upload that fails ends the rank.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clade_core::ids::{CheckpointRef, Incarnation, ModelId, RunName, Step};
use clade_core::job::Failure;
use clade_model::train::{Snapshot, Trainer};
use clade_model::weights::WeightsError;
use clade_store::{CheckpointManifest, Store, StoreError, checkpoint, keys};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::course::Course;
use super::how::How;
use super::interval::{Interval, failures_per_day};
use crate::context::Context;
use crate::rank::Uplink;

pub(crate) const MODEL_FILE: &str = "model.safetensors";
pub(crate) const OPTIMIZER_FILE: &str = "optimizer.safetensors";

pub(super) struct Keeper {
    store: Store,
    runtime: Handle,
    uplink: Arc<Uplink>,
    scratch: PathBuf,
    interval: Interval,
    saved_at: Instant,
    /// The step that is saved already: the origin's, or the last checkpoint's.
    saved_step: u64,
    uploading: Option<JoinHandle<Result<(), Failure>>>,
    /// Lines since the last checkpoint, and the step of the first of them.
    lines: Vec<u8>,
    first_line: u64,
    /// All but step, cursor and parts.
    template: CheckpointManifest,
}

impl Keeper {
    pub(super) fn new(
        context: &Context,
        course: &Course,
        uplink: Arc<Uplink>,
        parent: Option<CheckpointRef>,
        steps_done: u64,
    ) -> Result<Self, Failure> {
        let Context { job, spec, store, scratch, runtime, .. } = context;
        let (run, model, incarnation) = (job.run.clone(), course.model, job.incarnation);
        let used = checkpoint::newest_candidate(store, &run, model, incarnation);
        if let Some(used) = context.block_on(used)? {
            return Err(already_used(&used));
        }
        let policy = spec.spec.training.checkpoint;
        let failures = failures_per_day(job.between_failures, policy.failures_per_day);
        tracing::info!(failures, "the share of seats expected to fail in a day");
        Ok(Self {
            store: store.clone(),
            runtime: runtime.clone(),
            uplink,
            scratch: scratch.clone(),
            interval: Interval::new(policy.every.duration(), failures, job.ranks),
            saved_at: Instant::now(),
            saved_step: steps_done,
            uploading: None,
            lines: Vec::new(),
            first_line: steps_done + 1,
            template: CheckpointManifest {
                run,
                model,
                incarnation,
                step: Step(steps_done),
                cursor: 0,
                parts: Vec::new(),
                parent,
                seed: spec.spec.seed,
                world_size: job.ranks,
                how: Some(serde_json::to_value(How::here(course)).expect("plain data")),
                data: course.data_digest,
                spec: course.spec_digest,
                code_version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        })
    }

    /// Adds a line to the metrics.
    pub(super) fn record<T: Serialize>(&mut self, line: &T) {
        serde_json::to_writer(&mut self.lines, line)
            .expect("a line is plain data, and memory takes it");
        self.lines.push(b'\n');
    }

    /// Whether it is time to save, and the last upload is through.
    pub(super) fn is_due(&mut self) -> Result<bool, Failure> {
        if self.uploading.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle()?;
        }
        Ok(self.uploading.is_none() && self.saved_at.elapsed() >= self.interval.get())
    }

    /// Saves the model as it is now, and uploads it in the background.
    pub(super) fn save(&mut self, trainer: &Trainer, cursor: u64) -> Result<(), Failure> {
        self.settle()?;
        let step = trainer.steps_done();
        self.saved_at = Instant::now();
        if step == self.saved_step {
            return Ok(());
        }
        let folder = self.scratch.join(format!("step-{step}"));
        let snapshot = trainer.snapshot();
        if let Some(interval) = self.interval.measured(self.saved_at.elapsed()) {
            tracing::info!(?interval, cost = ?self.saved_at.elapsed(), "saving this often from now on");
        }
        let upload = Upload {
            snapshot,
            store: self.store.clone(),
            folder,
            manifest: CheckpointManifest { step: Step(step), cursor, ..self.template.clone() },
            lines: std::mem::take(&mut self.lines),
            first_line: Step(self.first_line),
            uplink: Arc::clone(&self.uplink),
        };
        self.first_line = step + 1;
        self.saved_step = step;
        self.uploading = Some(self.runtime.spawn(upload.perform()));
        Ok(())
    }

    /// Waits for the upload under way.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        let Some(uploading) = self.uploading.take() else { return Ok(()) };
        let crashed = |error: tokio::task::JoinError| Failure::Crashed {
            rank: 0,
            message: format!("an upload crashed: {error}"),
        };
        self.runtime.block_on(uploading).map_err(crashed)?
    }

    /// Stores the keys of a batch that cannot be trained on; returns where.
    pub(super) fn accuse(&self, step: u64, keys: &[String]) -> Result<String, Failure> {
        let CheckpointManifest { run, model, incarnation, .. } = &self.template;
        let key = accusation(run, *model, *incarnation, step);
        let content = serde_json::to_vec_pretty(keys).expect("keys are strings");
        self.runtime.block_on(self.store.put(&key, content))?;
        Ok(key)
    }
}

/// Where the keys of a batch that cannot be trained on are listed.
pub(super) fn accusation(
    run: &RunName,
    model: ModelId,
    incarnation: Incarnation,
    step: u64,
) -> String {
    format!("{}/refused-after-{step}.json", keys::gang(run, model, incarnation))
}

fn already_used(used: &CheckpointRef) -> Failure {
    let message = format!(
        "{used} exists already, and nothing is written over it: give the job file a higher \
         incarnation, and name this checkpoint as `resume` to go on from it"
    );
    Failure::Config { message }
}

/// One checkpoint on its way into the store.
struct Upload {
    snapshot: Snapshot,
    store: Store,
    folder: PathBuf,
    manifest: CheckpointManifest,
    lines: Vec<u8>,
    first_line: Step,
    uplink: Arc<Uplink>,
}

impl Upload {
    async fn perform(self) -> Result<(), Failure> {
        let Self { snapshot, store, folder, mut manifest, lines, first_line, uplink } = self;
        let into = folder.clone();
        let written = tokio::task::spawn_blocking(move || write(&snapshot, &into)).await;
        written.map_err(|error| Failure::Crashed {
            rank: 0,
            message: format!("writing a checkpoint crashed: {error}"),
        })??;
        let CheckpointManifest { run, model, incarnation, step, .. } = manifest.clone();
        let target = keys::step(&run, model, incarnation, step);
        for name in [MODEL_FILE, OPTIMIZER_FILE] {
            let part = store.upload(&folder.join(name), &format!("{target}/{name}")).await?;
            manifest.parts.push(part);
        }
        store.put(&keys::metrics(&run, model, incarnation, first_line), lines).await?;
        let written = checkpoint::commit(&store, &run, &manifest).await?;
        tracing::info!(%written, "wrote a checkpoint");
        uplink.checkpoint_written(step, written.manifest);
        tokio::fs::remove_dir_all(&folder)
            .await
            .map_err(|error| StoreError::from_io(folder.display().to_string(), error))?;
        Ok(())
    }
}

/// Writes the files of a checkpoint into a new folder, and lets go of the snapshot's memory.
fn write(snapshot: &Snapshot, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| StoreError::from_io(folder.display().to_string(), error))?;
    snapshot.write(&folder.join(MODEL_FILE), &folder.join(OPTIMIZER_FILE)).map_err(|error| {
        if matches!(error, WeightsError::Broken { .. }) {
            // Another try would end there too.
            let message = format!("{error}: lower training.learningRate.peak");
            return Failure::Data { message };
        }
        Failure::Storage { message: error.to_string() }
    })
}
