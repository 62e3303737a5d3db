//! The world's own records, and the scheduler held against them: who ran where, who wrote what under
//! which incarnation, who was really away for how long, what operators asked for.
//!
//! It shares no code with the scheduler's own invariants, which look at one state after one event.

mod end;
mod nodes;
mod overdue;
mod saved;
mod seats;
mod tries;

use std::collections::{BTreeMap, BTreeSet};

use clade_core::ids::{
    CheckpointRef, Fence, Incarnation, ModelId, NodeName, RunName, Seat, Term, WorkId, WorkerId,
};
use clade_core::job::Outcome;
use clade_core::schedule::{Action, Effects, Event};

use crate::world::World;

/// What really happened.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    launched: BTreeMap<Fence, BTreeSet<u32>>,
    ended: BTreeMap<(Fence, u32), Outcome>,
    stepped: BTreeMap<Fence, u64>,
    /// Ranks ordered, with their seats and what they go on from.
    ordered: BTreeMap<Fence, BTreeMap<u32, Seat>>,
    newest: BTreeMap<(RunName, WorkId), Incarnation>,
    records: BTreeMap<(RunName, ModelId), Vec<CheckpointRef>>,
    damaged: BTreeSet<(RunName, ModelId)>,
    drained: BTreeSet<NodeName>,
    cancelled: BTreeSet<RunName>,
    /// Nodes that were slow at any time.
    slow: BTreeSet<NodeName>,
    /// Quarantines of a node since it was last trusted.
    quarantines: BTreeMap<NodeName, u32>,
    /// For how many seconds in a row something was seen to be due.
    overdue: BTreeMap<String, u32>,
    /// How often a work was seen to wait although what it asks for is free.
    idle: BTreeMap<(RunName, WorkId), u32>,
}

/// What one leader was told, in its own waking time: ticks that it lived through.
#[derive(Debug, Default)]
pub(crate) struct Told {
    ticks: u64,
    leaps: u32,
    /// Workers that attached to this leader, with the tick at which their stream ended, if it did.
    streams: BTreeMap<WorkerId, Option<u64>>,
    goodbyes: BTreeSet<WorkerId>,
    /// When it last heard of a step of a gang.
    steps: BTreeMap<Fence, (u64, u64)>,
    rests: BTreeMap<(RunName, WorkId), (u64, u32, u64)>,
}

impl Told {
    /// Takes note of what an event says, if it was not refused.
    pub(crate) fn hears(&mut self, event: &Event) {
        match event {
            Event::Tick => self.ticks += 1,
            Event::WorkerAttached { worker, ranks, .. } => {
                self.streams.insert(worker.clone(), None);
                for rank in ranks {
                    self.steps.entry(rank.fence.clone()).or_default().0 = self.ticks;
                }
            }
            Event::WorkerDetached { worker } => {
                self.streams.entry(worker.clone()).or_default().get_or_insert(self.ticks);
            }
            Event::WorkerLeft { worker } => {
                self.goodbyes.insert(worker.clone());
            }
            Event::Progressed { fence, rank: 0, done, .. } => {
                let seen = self.steps.entry(fence.clone()).or_default();
                if seen.1 < *done {
                    *seen = (self.ticks, *done);
                }
            }
            Event::CheckpointReported { fence, .. } => {
                self.steps.entry(fence.clone()).or_default().0 = self.ticks;
            }
            Event::TookLead { .. }
            | Event::Applied { .. }
            | Event::CancelRequested { .. }
            | Event::NodeCordoned { .. }
            | Event::NodeUncordoned { .. }
            | Event::DeviceWithdrawn { .. }
            | Event::RendezvousPosted { .. }
            | Event::Progressed { .. }
            | Event::RankExited { .. }
            | Event::Inspected { .. } => (),
        }
    }

    /// Its clock leapt.
    pub(crate) const fn leapt(&mut self) {
        self.leaps += 1;
    }

    /// Whether a worker may be taken for lost: away for as long as the limits say.
    fn may_be_lost(&self, worker: &WorkerId, reattach: u64, takeover: u64) -> bool {
        if self.goodbyes.contains(worker) {
            return true;
        }
        // Standing still for less than two seconds goes unnoticed, and a leap back may hide the rest.
        let unnoticed = if self.leaps > 0 { 20 } else { 0 };
        let patience = |millis: u64| (millis / 100).saturating_sub(1 + unnoticed);
        match self.streams.get(worker) {
            Some(None) => false,
            Some(Some(since)) => self.ticks - since >= patience(reattach),
            None => self.ticks >= patience(takeover),
        }
    }
}

impl Judge {
    pub(crate) fn launched(&mut self, fence: &Fence, rank: u32) {
        self.launched.entry(fence.clone()).or_default().insert(rank);
    }

    /// Whether no rank of a gang has ended.
    pub(crate) fn is_whole(&self, fence: &Fence) -> bool {
        let from = (fence.clone(), 0);
        self.ended.range(from..).next().is_none_or(|((it, _), _)| it != fence)
    }

    pub(crate) fn stepped(&mut self, fence: &Fence, now: u64) {
        self.stepped.insert(fence.clone(), now);
    }

    pub(crate) fn ended(&mut self, fence: &Fence, rank: u32, outcome: &Outcome) {
        self.ended.insert((fence.clone(), rank), outcome.clone());
    }

    pub(crate) fn is_damaged(&self, run: &RunName, model: ModelId) -> bool {
        self.damaged.contains(&(run.clone(), model))
    }

    pub(crate) fn damaged(&mut self, run: &RunName, model: ModelId) {
        self.damaged.insert((run.clone(), model));
    }

    pub(crate) fn cordoned(&mut self, node: &NodeName, drain: bool) {
        if drain {
            self.drained.insert(node.clone());
        }
    }

    pub(crate) fn slowed(&mut self, node: &NodeName) {
        self.slow.insert(node.clone());
    }

    pub(crate) fn cancelled(&mut self, run: &RunName) {
        self.cancelled.insert(run.clone());
    }
}

impl World {
    /// Judges orders that are about to be given by one that leads.
    pub(crate) fn judge_orders(&mut self, term: Term, effects: &Effects) {
        if term != self.database.guard {
            return;
        }
        let mut broken = Vec::new();
        let Some(leader) = self.leaders.get_mut(&term) else { return };
        for action in &effects.actions {
            let Action::StartRank(start) = action else { continue };
            let fence = &start.fence;
            let Some(work) = leader.state.work(&fence.run, fence.work) else { continue };
            // G4: a gang goes on from its model's newest record.
            if start.resume.as_ref() != work.committed.last() {
                let from = Self::named(start.resume.as_ref());
                broken.push(format!("G4: {fence} is to start from {from}"));
            }
            let key = (fence.run.clone(), fence.work);
            let model = fence.work.model().map(|model| (fence.run.clone(), model));
            let has_records = model.is_some_and(|key| self.judge.records.contains_key(&key));
            if start.resume.is_none() && has_records {
                broken.push(format!("G4: {fence} is to start anew, though something was recorded"));
            }
            for at in start.resume.iter().chain(start.models.values()) {
                let found = self.bucket.find(&fence.run, at);
                if found.is_none_or(|it| it.is_deleted) {
                    broken.push(format!("G4: {fence} is to read {at}, which is not there"));
                }
            }
            // G2: no incarnation but the newest is ever started.
            let newest = self.judge.newest.entry(key).or_default();
            if fence.incarnation < *newest {
                broken.push(format!("G2: {fence} is ordered after incarnation {newest}"));
            }
            *newest = fence.incarnation.max(*newest);
            // G1: under one fence every rank has one seat, and no two share one.
            let seats = self.judge.ordered.entry(fence.clone()).or_default();
            let is_other = seats.get(&start.rank).is_some_and(|seat| *seat != start.seat);
            let is_shared = seats.iter().any(|(rank, it)| *it == start.seat && *rank != start.rank);
            if is_other || is_shared {
                broken.push(format!("G1: {fence} rank {} sits at {} too", start.rank, start.seat));
            }
            if seats.insert(start.rank, start.seat.clone()).is_none() {
                let ticks = leader.told.ticks;
                leader.told.steps.entry(fence.clone()).or_default().0 = ticks;
            }
        }
        for what in broken {
            self.broke(what);
        }
    }
}
