//! The file that makes one rank of one work runnable, with or without a coordinator.
//!
//! `clade-worker run job.yaml` needs nothing else: everything a rank must know is here or in the
//! run's own `spec.json` and `inputs.json` under `store`. One rank of a gang is one job file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{CheckpointRef, Fence, Incarnation, ModelId, RunName, WorkId};
use crate::rendezvous::Rendezvous;
use crate::spec::Span;

/// What one rank is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobFile {
    /// Root of the object store: `file:///absolute/path`.
    pub store: String,
    pub run: RunName,
    pub work: WorkId,
    pub incarnation: Incarnation,
    /// Position in the gang, `0..ranks`. Jobs have one rank.
    #[serde(default)]
    pub rank: u32,
    #[serde(default = "one")]
    pub ranks: u32,
    /// Where rank 0 listens and the others call. Without it rank 0 takes a free port and tells its
    /// agent, and the others wait to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendezvous: Option<Rendezvous>,
    /// The work's own newest committed checkpoint: where to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<CheckpointRef>,
    /// Older committed checkpoints of the same model, newest first: tried in turn if `resume` is damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<CheckpointRef>,
    /// The last checkpoint of each model this work reads: the seed for experts, the evaluated ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<ModelId, CheckpointRef>,
    /// Mean time between two failures of one seat, as the coordinator has seen it. Without it the run
    /// document's `failuresPerDay` is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between_failures: Option<Span>,
}

const fn one() -> u32 {
    1
}

impl JobFile {
    pub fn fence(&self) -> Fence {
        Fence { run: self.run.clone(), work: self.work, incarnation: self.incarnation }
    }
}

/// How a rank ended, as its agent reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Outcome {
    /// All its work is done and durable.
    Done {
        /// Counts for people and for planning: `pairs`, `unusable`, `pairs.expert-3`, …
        counts: BTreeMap<String, u64>,
    },
    /// It was asked to stop, and did.
    Stopped,
    /// Something was wrong.
    Failed(Failure),
}

impl Outcome {
    /// The same with fewer words: what is for people is cut after about `bytes`, counts are left out.
    #[must_use]
    pub fn in_short(mut self, bytes: usize) -> Self {
        match &mut self {
            Self::Done { counts } => counts.clear(),
            Self::Stopped => (),
            Self::Failed(failure) => failure.shorten(bytes),
        }
        self
    }
}

/// Why a work failed, and so whether trying again can help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "cause", rename_all = "camelCase")]
pub enum Failure {
    /// The input is at fault; trying again would end the same way.
    #[error("bad data: {message}")]
    Data { message: String },
    /// The run document or the installation is at fault; trying again would end the same way.
    #[error("cannot run as configured: {message}")]
    Config { message: String },
    /// The store or the disk refused; it may recover.
    #[error("storage failed: {message}")]
    Storage { message: String },
    /// The process ended by a signal or an unexpected exit status.
    #[error("rank {rank} crashed: {message}")]
    Crashed { rank: u32, message: String },
    /// The process could not be started.
    #[error("rank {rank} could not be started: {message}")]
    Launch { rank: u32, message: String },
    /// The process gave no sign of life for too long and was killed.
    #[error("rank {rank} made no progress for {seconds} s")]
    Stalled { rank: u32, seconds: u64 },
    /// Another rank of the gang went away; the reason is that rank's.
    #[error("rank {rank} lost a peer")]
    PeerLost { rank: u32 },
    /// The worker of a rank was lost.
    #[error("worker {worker} was lost")]
    WorkerLost { worker: String },
    /// The worker of a rank was asked to leave.
    #[error("worker {worker} left")]
    WorkerLeft { worker: String },
    /// Gang after gang ended without a new checkpoint.
    #[error("{gangs} gangs in a row ended without a new checkpoint; the last: {last}")]
    NoProgress { gangs: u32, last: Box<Self> },
}

impl Failure {
    /// A name for metrics: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Data { .. } => "data",
            Self::Config { .. } => "config",
            Self::Storage { .. } => "storage",
            Self::Crashed { .. } => "crashed",
            Self::Launch { .. } => "launch",
            Self::Stalled { .. } => "stalled",
            Self::PeerLost { .. } => "peer_lost",
            Self::WorkerLost { .. } => "worker_lost",
            Self::WorkerLeft { .. } => "worker_left",
            Self::NoProgress { .. } => "no_progress",
        }
    }

    fn shorten(&mut self, bytes: usize) {
        match self {
            Self::Data { message }
            | Self::Config { message }
            | Self::Storage { message }
            | Self::Crashed { message, .. }
            | Self::Launch { message, .. } => {
                if message.len() > bytes {
                    message.truncate(message.floor_char_boundary(bytes));
                    message.push('…');
                }
            }
            Self::NoProgress { last, .. } => last.shorten(bytes),
            Self::Stalled { .. }
            | Self::PeerLost { .. }
            | Self::WorkerLost { .. }
            | Self::WorkerLeft { .. } => (),
        }
    }

    /// Whether the same work may be tried again.
    pub const fn may_retry(&self) -> bool {
        match self {
            Self::Data { .. } | Self::Config { .. } | Self::NoProgress { .. } => false,
            Self::Storage { .. }
            | Self::Crashed { .. }
            | Self::Launch { .. }
            | Self::Stalled { .. }
            | Self::PeerLost { .. }
            | Self::WorkerLost { .. }
            | Self::WorkerLeft { .. } => true,
        }
    }

    /// Whether it counts against the restart budget: a machine's end is not the model's fault.
    pub const fn burns_budget(&self) -> bool {
        match self {
            Self::WorkerLost { .. } | Self::WorkerLeft { .. } => false,
            Self::Data { .. }
            | Self::Config { .. }
            | Self::Storage { .. }
            | Self::Crashed { .. }
            | Self::Launch { .. }
            | Self::Stalled { .. }
            | Self::PeerLost { .. }
            | Self::NoProgress { .. } => true,
        }
    }

    /// Whether the machine may be to blame.
    pub(crate) const fn may_be_the_nodes_fault(&self) -> bool {
        match self {
            Self::Crashed { .. }
            | Self::Launch { .. }
            | Self::Stalled { .. }
            | Self::WorkerLost { .. } => true,
            Self::Data { .. }
            | Self::Config { .. }
            | Self::Storage { .. }
            | Self::PeerLost { .. }
            | Self::WorkerLeft { .. }
            | Self::NoProgress { .. } => false,
        }
    }

    /// Whether a seat of the gang failed: its machine, device or process, or its link to the others.
    pub(crate) const fn is_a_seats(&self) -> bool {
        match self {
            Self::Crashed { .. }
            | Self::Stalled { .. }
            | Self::PeerLost { .. }
            | Self::WorkerLost { .. } => true,
            // A rank that could not be started had nothing to lose, and a store that fails is not helped
            // by being given more checkpoints.
            Self::Data { .. }
            | Self::Config { .. }
            | Self::Storage { .. }
            | Self::Launch { .. }
            | Self::WorkerLeft { .. }
            | Self::NoProgress { .. } => false,
        }
    }

    /// How much it says about the cause: a lost peer says the least.
    pub(crate) const fn weight(&self) -> u8 {
        match self {
            Self::PeerLost { .. } => 0,
            Self::WorkerLeft { .. } => 1,
            Self::WorkerLost { .. } => 2,
            Self::Stalled { .. } | Self::Launch { .. } | Self::Crashed { .. } => 3,
            Self::Storage { .. } => 4,
            Self::Config { .. } => 5,
            Self::Data { .. } | Self::NoProgress { .. } => 6,
        }
    }
}
