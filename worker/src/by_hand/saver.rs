//! Saves a model while it trains as a rank does: copied between two steps, written and uploaded beside the next.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clade_model::train::{Snapshot, Trainer};
use clade_store::Store;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::train::interval::Interval;
use crate::train::keeper::{MODEL_FILE, OPTIMIZER_FILE};

/// Published for large fleets; a bench has no document to say otherwise.
const FAILURES_PER_DAY: f64 = 0.0027;

/// Where and how often, and what it has cost.
pub(super) struct Saver {
    folder: PathBuf,
    store: Store,
    runtime: Runtime,
    interval: Interval,
    saved_at: Instant,
    writing: Option<JoinHandle<anyhow::Result<()>>>,
    pub(super) saves: u32,
    /// Time in which nothing was trained.
    pub(super) stood_still: Duration,
}

impl Saver {
    pub(super) fn new(folder: &Path, every: Duration, ranks: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("--save {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let store = Store::open(&format!("file://{}/store", folder.display()))?;
        Ok(Self {
            store,
            folder,
            runtime: Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
            interval: Interval::new(every, FAILURES_PER_DAY, ranks),
            saved_at: Instant::now(),
            writing: None,
            saves: 0,
            stood_still: Duration::ZERO,
        })
    }

    /// Between two steps: saves if it is time to, and the last one is through.
    pub(super) fn between_steps(&mut self, trainer: &Trainer) -> anyhow::Result<()> {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle()?;
        }
        if self.writing.is_some() || self.saved_at.elapsed() < self.interval.get() {
            return Ok(());
        }
        self.saved_at = Instant::now();
        let snapshot = trainer.snapshot();
        let cost = self.saved_at.elapsed();
        self.interval.measured(cost);
        self.stood_still += cost;
        self.saves += 1;
        let (folder, store) = (self.folder.join("scratch"), self.store.clone());
        self.writing = Some(self.runtime.spawn(write(snapshot, folder, store, self.saves)));
        Ok(())
    }

    /// Waits for the one under way.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        self.runtime.block_on(writing)?
    }
}

async fn write(snapshot: Snapshot, folder: PathBuf, store: Store, save: u32) -> anyhow::Result<()> {
    let into = folder.clone();
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&into)?;
        snapshot.write(&into.join(MODEL_FILE), &into.join(OPTIMIZER_FILE))?;
        anyhow::Ok(())
    });
    written.await??;
    for name in [MODEL_FILE, OPTIMIZER_FILE] {
        // The last one's place is taken: a bench keeps none.
        store.upload(&folder.join(name), &format!("save-{}/{name}", save % 2)).await?;
    }
    Ok(())
}
