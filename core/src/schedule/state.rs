//! What the coordinator decides upon: runs, works, gangs, workers, nodes.
//!
//! Everything that must survive a change of leadership is serialized; what is told again by itself
//! (streams, progress) is not. [`super::index`] holds what can be derived from the rest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::failures::Failures;
use super::farewell::Leaving;
use super::index::Index;
use super::progress::Seen;
use crate::ids::{
    CheckpointRef, Fence, Incarnation, JobId, Millis, ModelId, NodeName, RunName, Seat, Stage,
    Step, Term, WorkId, WorkerId,
};
use crate::job::{Failure, Outcome};
use crate::plan::{Need, Plan};
use crate::rendezvous::Rendezvous;
use crate::spec::{ExpertSteps, Requires, RunSpec, expert_pairs};

/// Everything the coordinator decides upon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub term: Term,
    pub runs: BTreeMap<RunName, Run>,
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Nodes of which something must be remembered.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The time decisions are taken at. It never runs backwards: after a leap ahead that is taken
    /// back it goes on from where it was, as fast as the leader's own clock.
    pub(super) clock: Millis,
    /// What the leader's clock said last.
    pub(super) heard: Millis,
    /// Ends of rests and quarantines may have been written by a clock that was far ahead.
    pub(super) doubts_ends: bool,
    pub(super) seen: BTreeMap<(RunName, WorkId), Seen>,
    pub(super) failures: Failures,
    /// Gangs that were asked to save and leave, until it is known what they left.
    pub(super) leaving: BTreeMap<(RunName, WorkId), Leaving>,
    /// Seats were freed, or works became ready, since placement last looked at everything.
    pub(super) unsettled: bool,
    /// When gangs were last asked to make way, or found not to have to.
    pub(super) weighed: Millis,
    /// The gang that was last asked to leave so that it can have more seats, until it sits again.
    pub(super) widened: Option<(RunName, WorkId)>,
    /// Since when gangs that may have fewer ranks wait for more.
    pub(super) patient: BTreeMap<(RunName, WorkId), Millis>,
    /// When placement is to look again although nothing has changed: somebody's patience ends.
    pub(super) look_again: Option<Millis>,
    /// For whom free seats of a kind of device are kept, as placement last left it.
    pub(super) kept: BTreeMap<String, (RunName, WorkId)>,
    pub(super) index: Index,
}

/// One run and its works.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub head: RunHead,
    pub works: BTreeMap<WorkId, Work>,
    plan: Plan,
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
    /// All that failed since the last new checkpoint, by whosever fault.
    #[serde(default)]
    pub fruitless: u32,
    pub last_failure: Option<Failure>,
    /// Where a rank of it last failed: another node is tried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid: Option<NodeName>,
    /// Where a model's last gang sat: its data may still lie there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub home: BTreeSet<NodeName>,
    /// Microseconds that a model's steps took when it last saved: a new leader orders by it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<u64>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gang {
    /// `seats[rank]`; always a whole gang.
    pub seats: Vec<Seat>,
    /// Ranks that are gone; their seats are free.
    #[serde(with = "exits")]
    pub exited: BTreeMap<u32, Outcome>,
    /// Where rank 0 listens, once it has said so.
    pub rendezvous: Option<Rendezvous>,
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
    /// A model of a higher priority needs the seats, or one that has more left to do and can wait no longer.
    Preempted {
        by: RunName,
        work: WorkId,
    },
    Drained {
        node: NodeName,
    },
    DeviceWithdrawn {
        seat: Seat,
    },
    /// No step for so long.
    Hung {
        seconds: u64,
    },
    /// There are seats for more ranks than it has.
    Widened {
        to: u32,
    },
}

/// How a gang ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    Done { counts: BTreeMap<String, u64> },
    Stopped,
    Failed { failure: Failure },
}

/// What a worker says of itself when it joins; it stays so for the worker's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// The machine: cordon, drain and quarantine go by it.
    #[serde(default)]
    pub node: NodeName,
    pub host: String,
    /// Machines with fast links among them.
    #[serde(default)]
    pub domain: String,
    pub pid: u32,
    pub slots: u32,
    /// Name of the devices, `cpu` without any.
    #[serde(default)]
    pub kind: String,
    /// Memory of the smallest device.
    #[serde(default)]
    pub memory_mib: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Known to this worker alone: who comes back under its id must know it, too. Hexadecimal.
    #[serde(default)]
    pub secret: String,
}

/// One agent, while it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    #[serde(flatten)]
    pub offer: Offer,
    /// Slots that must not be used, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "slots")]
    pub withdrawn: BTreeMap<u32, String>,
    /// Set while no stream is open: when it will be judged lost. Not stored: a new leader asks anew.
    #[serde(skip)]
    pub lost_at: Option<Millis>,
    /// It said that it goes.
    #[serde(skip)]
    pub(super) said_goodbye: bool,
}

/// As [`exits`]: flattened maps lose their number keys.
mod slots {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        slots: &BTreeMap<u32, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(slots)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, String>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

/// What is remembered of a machine, over all the agents it has had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// An operator wants nothing new here, for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<String>,
    /// What is here is asked to save and leave. Only together with `cordoned`.
    pub draining: bool,
    /// Failures of ranks here since anything last went well, by `run/work`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub blame: BTreeMap<String, u32>,
    pub trust: Trust,
    /// Quarantines in a row.
    pub quarantines: u32,
    /// How much longer than its peers' a rank here takes, in percent, if that is remarkable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower_percent: Option<u32>,
}

/// Whether a node gets work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub enum Trust {
    #[default]
    Full,
    /// Gangs failed here again and again.
    Quarantined { until: Millis },
    /// Its time is over: one work at a time until something goes well.
    Retest,
}

/// One separately stored piece of [`State`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Run(RunName),
    Model(RunName, ModelId),
    /// Jobs `JOBS_PER_CHUNK·i ..` of a stage; those that are as they were made are left out.
    Jobs(RunName, Stage, u32),
    Worker(WorkerId),
    Node(NodeName),
}

/// Jobs stored together.
pub const JOBS_PER_CHUNK: u32 = 32;

impl Object {
    /// The object that holds a work.
    pub fn of(run: &RunName, work: WorkId) -> Self {
        match work {
            WorkId::Model(model) => Self::Model(run.clone(), model),
            WorkId::Job(JobId { stage, part }) => {
                Self::Jobs(run.clone(), stage, part / JOBS_PER_CHUNK)
            }
        }
    }
}

impl RunPhase {
    /// A name for metrics: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stopping { .. } => "stopping",
            Self::Finished => "finished",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl StopFor {
    /// A name for metrics: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Failure { .. } => "failure",
            Self::Resume => "resume",
        }
    }
}

impl Stop {
    /// A name for metrics: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RankGone => "rank_gone",
            Self::RunStopping => "run_stopping",
            Self::Preempted { .. } => "preempted",
            Self::Drained { .. } => "drained",
            Self::DeviceWithdrawn { .. } => "device_withdrawn",
            Self::Hung { .. } => "hung",
            Self::Widened { .. } => "widened",
        }
    }
}

impl Trust {
    /// A name for metrics: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Quarantined { .. } => "quarantined",
            Self::Retest => "retest",
        }
    }
}

impl Node {
    /// Whether it may be given anything at all.
    pub const fn is_open(&self) -> bool {
        self.cordoned.is_none() && !matches!(self.trust, Trust::Quarantined { .. })
    }
}

impl Gang {
    /// Ranks that are not known to be gone, with their seats.
    pub fn alive(&self) -> impl Iterator<Item = (u32, &Seat)> {
        (0..).zip(&self.seats).filter(|(rank, _)| !self.exited.contains_key(rank))
    }
}

impl Work {
    pub const fn new() -> Self {
        Self {
            incarnation: Incarnation(1),
            phase: Phase::Waiting,
            restarts: 0,
            strikes: 0,
            fruitless: 0,
            last_failure: None,
            avoid: None,
            home: BTreeSet::new(),
            pace: None,
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

    pub(super) const fn gang_mut(&mut self) -> Option<&mut Gang> {
        match &mut self.phase {
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

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

impl Run {
    /// A run none of whose works has begun.
    pub fn new(head: RunHead) -> Self {
        let plan = Plan::new(&head.spec, head.tars);
        let works = plan.works().into_iter().map(|id| (id, Work::new())).collect();
        Self { head, works, plan }
    }

    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    pub const fn name(&self) -> &RunName {
        self.head.spec.name()
    }

    pub fn fence(&self, work: WorkId) -> Option<Fence> {
        let incarnation = self.works.get(&work)?.incarnation;
        Some(Fence { run: self.name().clone(), work, incarnation })
    }

    /// The step at which `model` is done.
    pub fn due(&self, model: ModelId) -> Step {
        let spec = &self.head.spec;
        if matches!(spec.spec.training.expert_steps, ExpertSteps::Equal(_)) {
            return spec.due(model, &[]);
        }
        let seal = self.works.get(&WorkId::job(Stage::Seal, 0));
        let pairs = seal.map(|seal| expert_pairs(&seal.counts, spec.spec.clusters.experts));
        spec.due(model, &pairs.unwrap_or_default())
    }

    /// Steps that are left to a model that has reached so many: every one but the seed goes on from
    /// where that ends.
    pub(super) fn steps_left(&self, model: ModelId, reached: u64) -> u64 {
        let first = if model == ModelId::Seed { 0 } else { self.due(ModelId::Seed).0 };
        self.due(model).0.saturating_sub(reached.max(first))
    }

    /// Ranks that `work` is seated with if there are enough seats.
    pub const fn ranks(&self, work: WorkId) -> u32 {
        match work {
            WorkId::Job(_) => 1,
            WorkId::Model(model) => self.head.spec.gang(model).ranks,
        }
    }

    /// Ranks below which `work` waits.
    pub fn least(&self, work: WorkId) -> u32 {
        match work {
            WorkId::Job(_) => 1,
            WorkId::Model(model) => self.head.spec.gang(model).least(),
        }
    }

    /// The most ranks that `work` may have on so many seats.
    pub fn widest(&self, work: WorkId, seats: u32) -> Option<u32> {
        match work {
            WorkId::Job(_) => (seats > 0).then_some(1),
            WorkId::Model(model) => self.head.spec.widest(model, seats),
        }
    }

    /// What lasts `time` with all its ranks, with `ranks` of them: a step's work is shared by all.
    pub(super) fn stretched(&self, work: WorkId, time: u64, ranks: u32) -> u64 {
        let all = u64::from(self.ranks(work));
        time.saturating_mul(all) / u64::from(ranks.max(1))
    }

    /// What would last so long with all its ranks as `time` with those of its gang.
    pub(super) fn shrunk(&self, work: WorkId, time: u64) -> u64 {
        let gang = self.works.get(&work).and_then(Work::gang);
        let seats = gang.map_or(u64::from(self.ranks(work)), |gang| gang.seats.len() as u64);
        (time.saturating_mul(seats) / u64::from(self.ranks(work).max(1))).max(1)
    }

    /// What the seats of `work` must offer.
    pub const fn requires(&self, work: WorkId) -> &Requires {
        match work {
            WorkId::Job(_) => &self.head.spec.spec.gangs.jobs.requires,
            WorkId::Model(model) => &self.head.spec.gang(model).requires,
        }
    }

    pub(super) fn is_met(&self, need: Need, open: &BTreeMap<Stage, u32>) -> bool {
        match need {
            Need::Stage(stage) => !open.contains_key(&stage),
            Need::Work(work) => self.works.get(&work).is_some_and(|it| it.phase == Phase::Done),
        }
    }
}

impl State {
    /// A state as it was stored; every worker must find its way back to this leader.
    ///
    /// Works that are not among `works` are as they were made.
    pub fn restore(
        term: Term,
        heads: Vec<RunHead>,
        works: Vec<(RunName, WorkId, Work)>,
        workers: BTreeMap<WorkerId, Worker>,
        nodes: BTreeMap<NodeName, Node>,
    ) -> Self {
        let runs = heads.into_iter().map(|head| (head.spec.name().clone(), Run::new(head)));
        let mut state = Self { term, runs: runs.collect(), workers, nodes, ..Self::default() };
        for (run, id, work) in works {
            if let Some(found) = state.runs.get_mut(&run).and_then(|run| run.works.get_mut(&id)) {
                *found = work;
            }
        }
        state.index = Index::of(&state);
        state.unsettled = true;
        state
    }

    pub fn work(&self, run: &RunName, work: WorkId) -> Option<&Work> {
        self.runs.get(run)?.works.get(&work)
    }

    /// The jobs of one stored chunk that are not as they were made.
    pub fn begun(&self, run: &RunName, stage: Stage, chunk: u32) -> BTreeMap<WorkId, Work> {
        let Some(run) = self.runs.get(run) else { return BTreeMap::new() };
        let from = chunk * JOBS_PER_CHUNK;
        let range = WorkId::job(stage, from)..WorkId::job(stage, from + JOBS_PER_CHUNK);
        let begun = run.works.range(range).filter(|(_, work)| **work != Work::new());
        begun.map(|(id, work)| (*id, work.clone())).collect()
    }

    /// Seats taken by ranks that are not known to be gone.
    pub fn taken(&self) -> impl Iterator<Item = (Seat, &RunName, WorkId)> {
        self.index.taken()
    }

    /// Who holds a seat.
    pub fn holder(&self, seat: &Seat) -> Option<(&RunName, WorkId)> {
        let mut seated = self.index.seated(&seat.worker);
        seated.find(|(slot, ..)| *slot == seat.slot).map(|(_, run, work)| (run, work))
    }

    /// How many seats of a worker are taken.
    pub fn busy(&self, worker: &WorkerId) -> usize {
        self.index.busy(worker)
    }

    /// What `work` still waits for.
    pub fn missing(&self, run: &RunName, work: WorkId) -> Vec<Need> {
        let (Some(found), Some(facts)) = (self.runs.get(run), self.index.run(run)) else {
            return Vec::new();
        };
        let needs = found.plan().needs(work).into_iter();
        needs.filter(|need| !found.is_met(*need, &facts.open)).collect()
    }

    /// The node of a worker that is known.
    pub(super) fn node_of(&self, worker: &WorkerId) -> Option<&NodeName> {
        self.workers.get(worker).map(|it| &it.offer.node)
    }

    /// Where a rank of a seated gang sits.
    pub fn seat(&self, fence: &Fence, rank: u32) -> Option<&Seat> {
        let work = self.work(&fence.run, fence.work)?;
        if work.incarnation != fence.incarnation {
            return None;
        }
        work.gang()?.seats.get(usize::try_from(rank).ok()?)
    }
}
