//! What can happen, and what can be done about it.

use std::collections::BTreeMap;

use super::Offer;
use crate::ids::{
    CheckpointRef, Fence, Incarnation, Millis, ModelId, NodeName, RunName, Seat, Step, Term,
    WorkerId,
};
use crate::job::Outcome;
use crate::rendezvous::Rendezvous;
use crate::spec::RunSpec;

/// News for the scheduler. What a worker says names the worker that says it.
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
    /// An operator wants nothing new on a node; with `drain`, what is there is to leave as well.
    NodeCordoned {
        node: NodeName,
        reason: String,
        drain: bool,
    },
    NodeUncordoned {
        node: NodeName,
    },
    /// A worker opened a stream; `ranks` live there, `withdrawn` slots must not be used.
    WorkerAttached {
        worker: WorkerId,
        offer: Offer,
        withdrawn: BTreeMap<u32, String>,
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
    /// A worker's device reports errors.
    DeviceWithdrawn {
        worker: WorkerId,
        slot: u32,
        reason: String,
    },
    RendezvousPosted {
        worker: WorkerId,
        fence: Fence,
        address: Rendezvous,
    },
    CheckpointReported {
        worker: WorkerId,
        fence: Fence,
        checkpoint: CheckpointRef,
    },
    /// How far a rank of a model is, and its own time per step.
    Progressed {
        worker: WorkerId,
        fence: Fence,
        rank: u32,
        done: u64,
        busy_us: u64,
    },
    /// An agent confirms that a rank is gone and its seat free.
    RankExited {
        worker: WorkerId,
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
        /// Whether it is asked where it stands before it is killed: it hangs.
        tell: bool,
    },
    ShareRendezvous {
        worker: WorkerId,
        fence: Fence,
        address: Rendezvous,
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
    pub rendezvous: Option<Rendezvous>,
    pub grace_ms: u64,
    /// Mean time between two failures of one seat; none if none is to be expected.
    pub between_failures: Option<Millis>,
}

/// Why a report was not taken. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such run or work")]
    UnknownWork,
    #[error("superseded by incarnation {current}")]
    Superseded { current: Incarnation },
    /// Nobody was ever started under this fence.
    #[error("incarnation {current} is the newest there is")]
    NeverStarted { current: Incarnation },
    #[error("no gang is seated")]
    NotSeated,
    #[error("that rank sits at {seat}")]
    NotYours { seat: Seat },
    #[error("the model ends at step {due}")]
    BeyondDue { due: Step },
    #[error("no such worker, or it was declared lost")]
    UnknownWorker,
    #[error("another worker of this id is known: an id is one agent's for one lifetime")]
    WorkerChanged,
    #[error("no worker of this cluster is on a node `{node}`")]
    UnknownNode { node: NodeName },
}

impl Event {
    /// A name for metrics: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TookLead { .. } => "took_lead",
            Self::Applied { .. } => "applied",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::NodeCordoned { .. } => "node_cordoned",
            Self::NodeUncordoned { .. } => "node_uncordoned",
            Self::WorkerAttached { .. } => "worker_attached",
            Self::WorkerDetached { .. } => "worker_detached",
            Self::WorkerLeft { .. } => "worker_left",
            Self::DeviceWithdrawn { .. } => "device_withdrawn",
            Self::RendezvousPosted { .. } => "rendezvous_posted",
            Self::CheckpointReported { .. } => "checkpoint_reported",
            Self::Progressed { .. } => "progressed",
            Self::RankExited { .. } => "rank_exited",
            Self::Inspected { .. } => "inspected",
            Self::Tick => "tick",
        }
    }
}

impl Action {
    /// A name for metrics: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::StartRank(_) => "start_rank",
            Self::StopRank { .. } => "stop_rank",
            Self::ShareRendezvous { .. } => "share_rendezvous",
            Self::Inspect { .. } => "inspect",
            Self::Collect { .. } => "collect",
            Self::Refuse { .. } => "refuse",
            Self::Supersede { .. } => "supersede",
        }
    }
}

impl Refusal {
    /// A name for metrics: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UnknownWork => "unknown_work",
            Self::Superseded { .. } => "superseded",
            Self::NeverStarted { .. } => "never_started",
            Self::NotSeated => "not_seated",
            Self::NotYours { .. } => "not_yours",
            Self::BeyondDue { .. } => "beyond_due",
            Self::UnknownWorker => "unknown_worker",
            Self::WorkerChanged => "worker_changed",
            Self::UnknownNode { .. } => "unknown_node",
        }
    }
}
