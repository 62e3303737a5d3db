//! One simulated agent and its ranks.

use std::collections::{BTreeMap, BTreeSet};

use clade_core::ids::{
    CheckpointRef, Fence, Incarnation, Millis, ModelId, RunName, Term, WorkId, WorkerId,
};
use clade_core::job::{Failure, Outcome};
use clade_core::schedule::{Event, LiveRank, Start};

/// Steps between two checkpoints.
const CHECKPOINT_EVERY: u64 = 20;
/// Steps per tick.
const PACE: u64 = 7;

/// An agent: what the coordinator knows of it, and what really is.
pub struct Agent {
    pub id: WorkerId,
    pub is_attached: bool,
    pub away_until: Millis,
    /// Reports not yet acknowledged.
    pub reports: Vec<Event>,
    slots: u32,
    term: Term,
    highest: BTreeMap<(RunName, WorkId), Incarnation>,
    ranks: BTreeMap<(Fence, u32), Rank>,
    exits: BTreeMap<(Fence, u32), Outcome>,
}

struct Rank {
    slot: u32,
    step: u64,
    written: u64,
    is_stopping: bool,
}

impl Agent {
    pub(super) fn new(id: WorkerId, slots: u32) -> Self {
        Self {
            id,
            is_attached: false,
            away_until: Millis(0),
            reports: Vec::new(),
            slots,
            term: Term(0),
            highest: BTreeMap::new(),
            ranks: BTreeMap::new(),
            exits: BTreeMap::new(),
        }
    }

    pub(super) fn hello(&self) -> Event {
        let live = self.ranks.iter().map(|((fence, rank), it)| LiveRank {
            fence: fence.clone(),
            rank: *rank,
            slot: it.slot,
        });
        Event::WorkerAttached {
            worker: self.id.clone(),
            host: "simulated".to_owned(),
            pid: 1,
            slots: self.slots,
            ranks: live.collect(),
        }
    }

    pub(super) fn living(&self) -> impl Iterator<Item = &Fence> {
        self.ranks.keys().map(|(fence, _)| fence)
    }

    fn obeys(&mut self, term: Term, fence: &Fence) -> bool {
        let highest = self.highest.entry((fence.run.clone(), fence.work)).or_default();
        if term < self.term || fence.incarnation < *highest {
            return false;
        }
        self.term = term;
        *highest = fence.incarnation;
        true
    }

    pub(super) fn start(&mut self, term: Term, start: Start) {
        let key = (start.fence.clone(), start.rank);
        if let Some(outcome) = self.exits.get(&key) {
            let outcome = outcome.clone();
            self.say_exited(&key, outcome);
            return;
        }
        if !self.obeys(term, &start.fence) || self.ranks.contains_key(&key) {
            return;
        }
        let seats: BTreeSet<u32> = self.ranks.values().map(|rank| rank.slot).collect();
        assert!(!seats.contains(&start.seat.slot), "{} is taken twice", start.seat);
        let of = |model| start.models.get(&model).map(|it: &CheckpointRef| it.step.0);
        let from = start.resume.as_ref().map(|it| it.step.0);
        let step =
            from.or_else(|| of(ModelId::Seed)).filter(|_| start.fence.work.model().is_some());
        let step = step.unwrap_or(0);
        let rank = Rank { slot: start.seat.slot, step, written: step, is_stopping: false };
        self.ranks.insert(key, rank);
    }

    pub(super) fn stop(&mut self, term: Term, fence: &Fence, rank: u32, save: bool) {
        let key = (fence.clone(), rank);
        if term < self.term {
            return;
        }
        self.term = term;
        match self.ranks.get_mut(&key) {
            Some(found) if save => found.is_stopping = true,
            Some(_) => self.end(&key, Outcome::Stopped),
            None => {
                let outcome = self.exits.get(&key).cloned().unwrap_or(Outcome::Stopped);
                self.say_exited(&key, outcome);
            }
        }
    }

    pub(super) fn kill_ranks(&mut self, mut dies: impl FnMut() -> bool) {
        let keys: Vec<(Fence, u32)> = self.ranks.keys().cloned().collect();
        for key in keys {
            if dies() {
                let message = "signal 9".to_owned();
                self.end(&key, Outcome::Failed(Failure::Crashed { rank: key.1, message }));
            }
        }
    }

    /// Takes a step of `fence`'s ranks here; returns the step rank 0 has written a checkpoint of.
    pub(super) fn work(&mut self, fence: &Fence, due: u64) -> Option<u64> {
        let keys: Vec<(Fence, u32)> =
            self.ranks.keys().filter(|(of, _)| of == fence).cloned().collect();
        let mut written = None;
        for key in keys {
            let Some(rank) = self.ranks.get_mut(&key) else { continue };
            rank.step = (rank.step + PACE).min(due);
            let is_last = rank.step == due;
            if is_last || rank.is_stopping || rank.step >= rank.written + CHECKPOINT_EVERY {
                rank.written = rank.step;
                if key.1 == 0 {
                    written = Some(rank.step);
                }
            }
            if is_last {
                self.end(&key, Outcome::Done { counts: BTreeMap::new() });
            } else if rank.is_stopping {
                self.end(&key, Outcome::Stopped);
            }
        }
        written
    }

    /// Reports the checkpoint before the exit, as the real agent's one pipe does.
    pub(super) fn wrote(&mut self, fence: &Fence, checkpoint: &CheckpointRef) {
        let is_here = self.ranks.contains_key(&(fence.clone(), 0))
            || self.exits.contains_key(&(fence.clone(), 0));
        if is_here {
            let (worker, fence) = (self.id.clone(), fence.clone());
            let checkpoint = checkpoint.clone();
            let is_its_end =
                |it: &Event| matches!(it, Event::RankExited { fence: of, .. } if *of == fence);
            let at = self.reports.iter().position(is_its_end).unwrap_or(self.reports.len());
            self.reports.insert(at, Event::CheckpointReported { worker, fence, checkpoint });
        }
    }

    fn end(&mut self, key: &(Fence, u32), outcome: Outcome) {
        if self.ranks.remove(key).is_some() {
            self.exits.insert(key.clone(), outcome.clone());
            self.say_exited(key, outcome);
        }
    }

    fn say_exited(&mut self, (fence, rank): &(Fence, u32), outcome: Outcome) {
        self.reports.push(Event::RankExited { fence: fence.clone(), rank: *rank, outcome });
    }
}
