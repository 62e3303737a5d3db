//! What can happen, and what can be done about it.

use std::collections::BTreeMap;

use crate::ids::{CheckpointRef, Fence, Incarnation, ModelId, RunName, Seat, Term, WorkerId};
use crate::job::Outcome;
use crate::spec::RunSpec;

/// News for the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This coordinator took the state; workers must find their way to it.
    TookLead {
        term: Term,
    },
    /// A run document was accepted; `tars` input tars were found.
    Applied {
        spec: Box<RunSpec>,
        tars: u32,
    },
    CancelRequested {
        run: RunName,
    },
    /// A worker opened a stream; `ranks` live there.
    WorkerAttached {
        worker: WorkerId,
        host: String,
        pid: u32,
        slots: u32,
        ranks: Vec<LiveRank>,
    },
    /// A worker's stream ended, or its heartbeats stopped.
    WorkerDetached {
        worker: WorkerId,
    },
    /// A worker said that it goes and that its ranks are gone.
    WorkerLeft {
        worker: WorkerId,
    },
    RendezvousPosted {
        fence: Fence,
        address: String,
    },
    CheckpointReported {
        worker: WorkerId,
        fence: Fence,
        checkpoint: CheckpointRef,
    },
    /// An agent confirms that a rank is gone and its seat free.
    RankExited {
        fence: Fence,
        rank: u32,
        outcome: Outcome,
    },
    /// The newest sound candidate that an ended gang left.
    Inspected {
        fence: Fence,
        newest: Option<CheckpointRef>,
    },
    /// Time passed.
    Tick,
}

/// A rank that a worker says is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRank {
    pub fence: Fence,
    pub rank: u32,
    pub slot: u32,
}

/// What the shell must do, after the state is saved. Repeating any of them is harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    StartRank(Start),
    StopRank {
        seat: Seat,
        fence: Fence,
        rank: u32,
        save: bool,
    },
    ShareRendezvous {
        worker: WorkerId,
        fence: Fence,
        address: String,
    },
    /// Lists what an ended gang left and answers with [`Event::Inspected`].
    Inspect {
        fence: Fence,
    },
    /// Deletes checkpoints that fell out of the kept history.
    Collect {
        run: RunName,
        checkpoints: Vec<CheckpointRef>,
    },
    /// Tells a worker that what it said is not taken.
    Refuse {
        worker: WorkerId,
        fence: Fence,
        why: Refusal,
    },
    /// Tells a worker that it was declared lost.
    Supersede {
        worker: WorkerId,
    },
}

/// Everything a rank is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub seat: Seat,
    pub fence: Fence,
    pub rank: u32,
    pub ranks: u32,
    pub store: String,
    pub resume: Option<CheckpointRef>,
    pub fallbacks: Vec<CheckpointRef>,
    pub models: BTreeMap<ModelId, CheckpointRef>,
    pub rendezvous: Option<String>,
    pub grace_ms: u64,
}

/// Why a report was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such run or work")]
    Unknown,
    #[error("superseded by incarnation {current}")]
    Superseded { current: Incarnation },
    #[error("no gang is seated")]
    NotSeated,
}
