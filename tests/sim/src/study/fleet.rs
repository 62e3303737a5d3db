//! A fleet of GPU nodes around the real scheduler: one leader, no lost message; machines that fail.
//!
//! Every decision is `clade_core::schedule::step`'s. What is modelled is time: of a step, a checkpoint, a
//! start, a repair. Faults of the network and of leaders are the seeded worlds' business, not this one's.

use std::collections::{BTreeMap, BTreeSet};

use clade_core::ids::{CheckpointRef, Fence, Millis, ModelId, NodeName, RunName, WorkId, WorkerId};
use clade_core::job::Outcome;
use clade_core::schedule::{Action, Event, Limits, Offer, Phase, State, Worker, invariants, step};

use super::breakage::{Breakage, Hit};
use super::costs::Costs;
use super::ledger::Ledger;
use super::setup::{RunPlan, ready};
use super::track::{Doing, Track};
use crate::setting::EPOCH;

pub(crate) const SLOTS: u32 = 8;

/// Between two ticks of the leader.
const TICK: u64 = 1_000;

/// What is going to happen.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Tick,
    Turn { track: usize, turn: u64, next: Next },
    Uploaded { track: usize, fence: Fence, step: u64 },
    RankExits { worker: WorkerId, fence: Fence, rank: u32, outcome: Outcome },
    Inspected { fence: Fence, newest: Option<CheckpointRef> },
    Detached { worker: WorkerId },
    Returns { node: usize },
    Fails,
}

/// What a gang does next if nothing comes between.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Begin,
    Report,
    Save,
    Saved { step: u64 },
    Finish,
    Finished,
    Left { step: u64 },
}

/// One machine.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) is_up: bool,
    /// Counts its agents.
    pub(super) life: u32,
}

/// The fleet, and the scheduler that decides over it.
pub(crate) struct Fleet {
    pub(super) state: State,
    pub(super) now: u64,
    pub(super) limits: Limits,
    pub(super) costs: Costs,
    /// Between the begins of two checkpoints.
    pub(super) interval: u64,
    pub(crate) tracks: Vec<Track>,
    pub(super) sites: Vec<Site>,
    pub(super) breakage: Option<Breakage>,
    /// Failures that stopped a gang.
    pub(crate) hits: Vec<Hit>,
    /// All models' together, once all are done.
    pub(crate) ledger: Ledger,
    /// Seat-milliseconds of jobs.
    pub(crate) jobs: u64,
    /// Seat-milliseconds that were taken by the core's own account, if that is audited.
    pub(crate) held: u64,
    pub(crate) refusals: u32,
    audits: bool,
    names: BTreeMap<(RunName, WorkId), usize>,
    keys: Vec<(RunName, WorkId)>,
    /// Ends of ranks that were told: an agent tells each once.
    told: BTreeSet<(Fence, u32)>,
    pub(super) jobs_since: BTreeMap<(RunName, WorkId), u64>,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
}

impl Fleet {
    /// A fleet on which every expert of `plans` is ready, with a checkpoint every `interval`.
    pub(crate) fn new(plans: &[RunPlan], nodes: usize, costs: Costs, interval: u64) -> Self {
        let workers = (0..nodes).map(|node| {
            let mut worker = Worker::default();
            worker.offer = offer(node);
            (worker_id(node, 0), worker)
        });
        let mut fleet = Self {
            state: ready(plans, workers.collect()),
            now: 0,
            limits: Limits::default(),
            costs,
            interval,
            tracks: Vec::new(),
            sites: vec![Site { is_up: true, life: 0 }; nodes],
            hits: Vec::new(),
            ledger: Ledger::default(),
            jobs: 0,
            held: 0,
            refusals: 0,
            breakage: None,
            audits: false,
            names: BTreeMap::new(),
            keys: Vec::new(),
            told: BTreeSet::new(),
            jobs_since: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
        };
        for plan in plans {
            let name: RunName = plan.name.parse().expect("the study's names are sound");
            for (at, &steps) in (0..).zip(&plan.steps) {
                let begun = usize::try_from(at).ok().and_then(|at| plan.begun.get(at));
                let begun = begun.copied().unwrap_or(0);
                let id = WorkId::Model(ModelId::Expert(at));
                fleet.names.insert((name.clone(), id), fleet.tracks.len());
                fleet.keys.push((name.clone(), id));
                fleet.tracks.push(Track::new(plan, steps, begun));
            }
        }
        fleet
    }

    #[cfg(test)]
    /// Holds every step against the invariants, and integrates what the core says is seated.
    pub(crate) const fn audited(mut self) -> Self {
        self.audits = true;
        self
    }

    pub(crate) fn breaking(mut self, breakage: Breakage) -> Self {
        self.breakage = Some(breakage);
        self
    }

    /// Plays until every model is done; returns when that was, or nothing if that takes until `limit`.
    pub(crate) fn play(&mut self, limit: u64) -> Option<u64> {
        self.tell(Event::Tick);
        self.at(TICK, Happening::Tick);
        self.plan_failure();
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > limit {
                return None;
            }
            if self.audits {
                self.held += self.seated() * (at - self.now);
            }
            self.now = at;
            self.happens(happening);
            if self.tracks.iter().all(|it| it.doing == Doing::Done) {
                break;
            }
        }
        for track in &self.tracks {
            self.ledger += track.ledger;
        }
        for since in std::mem::take(&mut self.jobs_since).into_values() {
            self.jobs += self.now - since;
        }
        Some(self.now)
    }

    pub(super) fn at(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Tick => {
                self.tell(Event::Tick);
                self.judge_waits();
                self.at(self.now + TICK, Happening::Tick);
            }
            Happening::Turn { track, turn, next } => {
                if self.tracks.get(track).is_some_and(|it| it.turn == turn) {
                    self.turns(track, next);
                }
            }
            Happening::Uploaded { track, fence, step } => self.uploaded(track, fence, step),
            Happening::RankExits { worker, fence, rank, outcome } => {
                let is_news = self.told.insert((fence.clone(), rank));
                if is_news && self.is_there(&worker) {
                    self.tell(Event::RankExited { worker, fence, rank, outcome });
                }
            }
            Happening::Inspected { fence, newest } => self.tell(Event::Inspected { fence, newest }),
            Happening::Detached { worker } => self.tell(Event::WorkerDetached { worker }),
            Happening::Returns { node } => self.returns(node),
            Happening::Fails => self.fails(),
        }
    }

    /// Applies one event, and does what the core asks for.
    pub(super) fn tell(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let about = self.audits.then(|| invariants::About::of(&event));
            let effects = step(&mut self.state, self.limits, Millis(EPOCH + self.now), event);
            if let Some(about) = about {
                let broken = invariants::violations(&about, &effects, &self.state);
                assert!(broken.is_empty(), "{broken:?}");
            }
            self.refusals += u32::from(effects.refusal.is_some());
            let is_news = !effects.before.works.is_empty();
            for action in effects.actions {
                self.perform(action);
            }
            if is_news {
                self.follow(effects.before.works.into_keys());
            }
            next = effects.more.then_some(Event::Tick);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StartRank(start) => self.starts(start),
            Action::StopRank { seat, fence, rank, save, .. } => self.stops(seat, fence, rank, save),
            Action::Inspect { fence } => self.inspects(fence),
            // Starting takes as long as it takes; nobody is refused or declared lost who comes back;
            // what is collected is not read.
            Action::ShareRendezvous { .. }
            | Action::Collect { .. }
            | Action::Refuse { .. }
            | Action::Supersede { .. } => (),
        }
    }

    /// Notes what the core concluded about works that it changed.
    fn follow(&mut self, changed: impl Iterator<Item = (RunName, WorkId)>) {
        for key in changed {
            let Some(work) = self.state.work(&key.0, key.1) else { continue };
            let Some(&track) = self.names.get(&key) else {
                if work.gang().is_none()
                    && let Some(since) = self.jobs_since.remove(&key)
                {
                    self.jobs += self.now - since;
                }
                continue;
            };
            assert!(!matches!(work.phase, Phase::Failed { .. }), "{} was given up", key.1);
            if work.phase == Phase::Waiting && self.tracks[track].doing == Doing::Turning {
                self.tracks[track].turn_to(self.now, Doing::Waiting);
                self.judge_waits();
            }
        }
    }

    /// Whether those who wait have too few seats that work, or are kept from them.
    fn judge_waits(&mut self) {
        if self.breakage.is_none() || self.tracks.iter().all(|it| it.doing != Doing::Waiting) {
            return;
        }
        let free = self.free();
        for track in &mut self.tracks {
            track.spend(self.now);
            track.is_short = u32::try_from(free).is_ok_and(|free| free < track.ranks);
        }
    }

    /// Seats that work and that nobody has.
    pub(super) fn free(&self) -> usize {
        let taken = self.state.taken().filter(|(seat, ..)| self.is_there(&seat.worker)).count();
        let up = self.sites.iter().filter(|it| it.is_up).count();
        up * usize::try_from(SLOTS).unwrap_or(0) - taken
    }

    /// Seats that the core holds for gangs and jobs, gone ranks' included until their gang has ended.
    fn seated(&self) -> u64 {
        let works = self.state.runs.values().flat_map(|run| run.works.values());
        let seats = works.filter_map(|work| work.gang()).map(|gang| gang.seats.len());
        u64::try_from(seats.sum::<usize>()).unwrap_or(0)
    }

    /// Whether this very agent is alive.
    pub(super) fn is_there(&self, worker: &WorkerId) -> bool {
        let parts = worker.0.strip_prefix('n').and_then(|it| it.split_once('-'));
        let Some((node, life)) = parts else { return false };
        let site = node.parse().ok().and_then(|node: usize| self.sites.get(node));
        site.is_some_and(|it| it.is_up && life.parse() == Ok(it.life))
    }

    pub(super) fn track_of(&self, fence: &Fence) -> Option<usize> {
        self.names.get(&(fence.run.clone(), fence.work)).copied()
    }

    pub(super) fn fence(&self, track: usize) -> Fence {
        let (run, work) = self.keys[track].clone();
        Fence { run, work, incarnation: self.tracks[track].incarnation }
    }
}

pub(super) fn worker_id(node: usize, life: u32) -> WorkerId {
    WorkerId(format!("n{node:03}-{life}"))
}

pub(super) fn offer(node: usize) -> Offer {
    Offer {
        node: NodeName(format!("n{node:03}")),
        host: format!("n{node:03}"),
        // A rack of four machines with eight GPUs.
        domain: format!("rack-{:02}", node / 4),
        pid: 1,
        slots: SLOTS,
        kind: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_mib: 81_559,
        labels: BTreeMap::new(),
        secret: String::new(),
    }
}
