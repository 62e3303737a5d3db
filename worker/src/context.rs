//! What every work of a rank is given: its job file, its run, its store, a way to report, a flag to stop.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clade_core::job::{Failure, JobFile};
use clade_core::plan::Plan;
use clade_core::spec::{self, RunSpec};
use clade_model::device::{DeviceChoice, Placement, Precision};
use clade_pairs::Cache;
use clade_store::{Inputs, Store};
use tokio::runtime::Handle;

/// Counts of what a job did, for people and for planning: `pairs`, `unusable.emptyCaption`, …
pub type Counts = std::collections::BTreeMap<String, u64>;

/// Everything a work may use. Works run on a thread of their own and block as they like.
pub struct Context {
    pub job: JobFile,
    pub spec: RunSpec,
    pub inputs: Inputs,
    pub plan: Plan,
    pub store: Store,
    /// Folder for temporary files; emptied before and after.
    pub scratch: PathBuf,
    /// Where models compute.
    pub device: DeviceChoice,
    /// The slot of the agent that this rank has: with `auto` it takes the GPU of that number. A rank that
    /// its agent pinned to a GPU sees no other.
    pub slot: u32,
    /// Keeps tars of an object store on this machine's disk.
    pub cache: Option<Arc<Cache>>,
    pub reporter: Arc<dyn Reporter>,
    pub stop: Arc<AtomicBool>,
    pub runtime: Handle,
}

impl Context {
    /// Waits for a store call from the work's own thread.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Where the run's models lie and compute here; loads what a GPU needs the first time.
    pub fn placement(&self) -> Result<Placement, Failure> {
        let precision = match self.spec.spec.model.precision {
            spec::Precision::F32 => Precision::F32,
            spec::Precision::Bf16 => Precision::Bf16,
        };
        let device = self
            .device
            .prepare_for(self.slot as usize)
            .map_err(|error| Failure::Config { message: format!("--device: {error}") })?;
        Ok(Placement { device, precision })
    }

    /// Whether the rank was asked to stop; long loops look at it between units of work.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Where a work tells how far it is. Calls are cheap and never block.
pub trait Reporter: Send + Sync {
    /// Units done of all: pairs of a job, steps of a model counted from the seed's first.
    fn progress(&self, done: u64, total: u64, loss: Option<f64>);
}

/// How a work can end other than well.
#[derive(Debug)]
pub enum Ending {
    /// It was asked to stop, and did.
    Stopped,
    Failed(Failure),
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
