//! Scheduling as a pure state machine: runs, works, gangs, workers.
//!
//! [`step`] is the only way state changes. It does no I/O, reads no clock and draws no random
//! number, so a log of events replays to the same state. Every event is legal in every state:
//! `step` cannot fail. A report that comes too late is answered with [`Action::Refuse`] or
//! ignored because it is already known; it is never taken for news.
//!
//! A *work* is whatever is seated as one: a job (one seat) or a model's gang. Jobs commit by
//! creating their manifest in the store, models through [`Event::CheckpointReported`] and
//! [`Event::Inspected`].

mod event;
mod gang;
pub mod invariants;
mod placement;
mod reason;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{
    CheckpointRef, Fence, Incarnation, JobId, Millis, ModelId, RunName, Seat, Stage, Step, Term,
    WorkId, WorkerId,
};
use crate::job::{Failure, Outcome};
use crate::plan::{Need, Plan};
use crate::spec::{RunSpec, expert_pairs};

pub use event::{Action, Event, LiveRank, Refusal, Start};
pub use reason::{Wait, why_waiting};
pub use step::{Effects, step};

/// Everything the coordinator decides upon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub term: Term,
    pub runs: BTreeMap<RunName, Run>,
    pub workers: BTreeMap<WorkerId, Worker>,
}

/// One run and its works.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub head: RunHead,
    pub works: BTreeMap<WorkId, Work>,
}

/// What of a run is stored apart from its works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunHead {
    pub spec: RunSpec,
    /// Number of input tars, which fixes the plan.
    pub tars: u32,
    pub phase: RunPhase,
    pub created: Millis,
    pub ended: Option<Millis>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase")]
pub enum RunPhase {
    Active,
    /// Its gangs are committing and leaving.
    Stopping {
        then: StopFor,
    },
    Finished,
    Failed {
        work: WorkId,
        failure: Failure,
    },
    Cancelled,
}

/// Why a run is being stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "camelCase")]
pub enum StopFor {
    Cancel,
    Failure {
        work: WorkId,
        failure: Failure,
    },
    /// It was applied again meanwhile, and goes on once every seat is free.
    Resume,
}

/// One job or one model, over all its tries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Of the gang that is seated, or of the next one to be. Never decreases.
    pub incarnation: Incarnation,
    pub phase: Phase,
    /// Gangs that ended without the work being done.
    pub restarts: u32,
    /// Of these, the ones since the last new checkpoint that count against the budget.
    pub strikes: u32,
    pub last_failure: Option<Failure>,
    /// The newest checkpoints of a model's committed history, oldest first.
    pub committed: Vec<CheckpointRef>,
    /// What a finished job counted.
    pub counts: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase")]
pub enum Phase {
    Waiting,
    Backoff {
        until: Millis,
    },
    Running(Gang),
    /// Seats stay taken until each agent confirms that its rank has exited.
    Stopping {
        gang: Gang,
        cause: Stop,
    },
    /// All ranks are gone; what they left in the store is being listed.
    Inspecting {
        verdict: Verdict,
    },
    Done,
    Failed {
        failure: Failure,
    },
}

/// Seats taken together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gang {
    /// `seats[rank]`; always a whole gang.
    pub seats: Vec<Seat>,
    /// Ranks that are gone; their seats are free.
    #[serde(with = "exits")]
    pub exited: BTreeMap<u32, Outcome>,
    /// Where rank 0 listens, once it has said so.
    pub rendezvous: Option<String>,
}

/// Writes a map with number keys as a list: inside a tagged enum its keys would come back as text.
mod exits {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::job::Outcome;

    pub(super) fn serialize<S: Serializer>(
        exited: &BTreeMap<u32, Outcome>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(exited)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, Outcome>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Why a gang was told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stop", rename_all = "camelCase")]
pub enum Stop {
    RankGone,
    RunStopping,
}

/// How a gang ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    Done { counts: BTreeMap<String, u64> },
    Stopped,
    Failed { failure: Failure },
}

/// One agent, while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    pub host: String,
    pub pid: u32,
    pub slots: u32,
    /// Set while no stream is open: when it will be judged lost.
    pub lost_at: Option<Millis>,
}

/// One separately stored piece of [`State`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Run(RunName),
    Work(RunName, WorkId),
    Worker(WorkerId),
}

/// Time limits that are the installation's, not a run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a worker may be without a stream before it is lost.
    pub reattach: Millis,
    /// The same after a change of leadership, when every worker must find its way back.
    pub takeover: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reattach: Millis(3_000), takeover: Millis(8_000) }
    }
}

impl Gang {
    /// Ranks that are not known to be gone, with their seats.
    pub fn alive(&self) -> impl Iterator<Item = (u32, &Seat)> {
        (0..).zip(&self.seats).filter(|(rank, _)| !self.exited.contains_key(rank))
    }
}

impl Work {
    pub(crate) const fn new() -> Self {
        Self {
            incarnation: Incarnation(1),
            phase: Phase::Waiting,
            restarts: 0,
            strikes: 0,
            last_failure: None,
            committed: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// The gang that holds seats, if any.
    pub const fn gang(&self) -> Option<&Gang> {
        match &self.phase {
            Phase::Running(gang) | Phase::Stopping { gang, .. } => Some(gang),
            Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Inspecting { .. }
            | Phase::Done
            | Phase::Failed { .. } => None,
        }
    }

    /// The newest step of the committed history.
    pub fn committed_step(&self) -> Step {
        self.committed.last().map_or(Step(0), |checkpoint| checkpoint.step)
    }

    /// Whether something is under way that ends by itself.
    pub const fn is_under_way(&self) -> bool {
        match &self.phase {
            Phase::Running(_) | Phase::Stopping { .. } | Phase::Inspecting { .. } => true,
            Phase::Waiting | Phase::Backoff { .. } | Phase::Done | Phase::Failed { .. } => false,
        }
    }
}

impl Run {
    pub fn plan(&self) -> Plan {
        Plan::new(&self.head.spec, self.head.tars)
    }

    pub fn name(&self) -> &RunName {
        self.head.spec.name()
    }

    pub fn fence(&self, work: WorkId) -> Option<Fence> {
        let incarnation = self.works.get(&work)?.incarnation;
        Some(Fence { run: self.name().clone(), work, incarnation })
    }

    /// The step at which `model` is done.
    pub fn due(&self, model: ModelId) -> Step {
        let spec = &self.head.spec;
        let seal = self.works.get(&WorkId::job(Stage::Seal, 0));
        let pairs = seal.map(|seal| expert_pairs(&seal.counts, spec.spec.clusters.experts));
        spec.due(model, &pairs.unwrap_or_default())
    }

    /// Ranks that `work` is seated with.
    pub fn ranks(&self, work: WorkId) -> u32 {
        match work {
            WorkId::Job(_) => 1,
            WorkId::Model(model) => self.head.spec.gang(model).ranks,
        }
    }

    /// Stages of which every job is done.
    pub fn done_stages(&self) -> BTreeSet<Stage> {
        let mut done: BTreeSet<Stage> = Stage::ALL.into_iter().collect();
        for (id, work) in &self.works {
            if let WorkId::Job(JobId { stage, .. }) = id
                && work.phase != Phase::Done
            {
                done.remove(stage);
            }
        }
        done
    }

    /// What `work` still waits for, given the finished stages.
    pub fn missing(&self, work: WorkId, plan: &Plan, done: &BTreeSet<Stage>) -> Vec<Need> {
        let is_open = |need: &Need| match need {
            Need::Stage(stage) => !done.contains(stage),
            Need::Work(work) => self.works.get(work).is_none_or(|work| work.phase != Phase::Done),
        };
        plan.needs(work).into_iter().filter(is_open).collect()
    }
}

impl State {
    pub fn work(&self, run: &RunName, work: WorkId) -> Option<&Work> {
        self.runs.get(run)?.works.get(&work)
    }

    /// Seats taken by ranks that are not known to be gone.
    pub fn taken(&self) -> BTreeMap<Seat, Fence> {
        let mut taken = BTreeMap::new();
        for run in self.runs.values() {
            for (&id, work) in &run.works {
                let fence =
                    Fence { run: run.name().clone(), work: id, incarnation: work.incarnation };
                for (_, seat) in work.gang().into_iter().flat_map(Gang::alive) {
                    taken.insert(seat.clone(), fence.clone());
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests;
