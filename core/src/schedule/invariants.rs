//! What must hold after every event, one property per file: checked by property tests and by the
//! simulation, and counted by a running coordinator.
//!
//! A check looks at what one event changed, so that it costs no more than the event did.

mod committed_never_goes_back;
mod failover_restarts_nothing;
mod few_objects_per_step;
mod losses_stay_where_they_are;
mod new_gang_new_fence;
mod nothing_new_on_closed_nodes;
mod one_rank_per_seat;
mod refusals_change_nothing;
mod seats_are_freed_by_word;
mod starts_only_after_its_needs;
mod whole;
mod whole_gangs;

use std::collections::BTreeSet;

use super::{Effects, Event, Gang, State, Work, Worker};
use crate::ids::{Fence, RunName, Seat, WorkId, WorkerId};

pub use whole::whole;

/// A broken invariant: its name, from a closed set, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub seen: String,
}

/// What an event was about, kept while it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub name: &'static str,
    worker: Option<WorkerId>,
    fence: Option<Fence>,
}

/// One event's doing: what it was about, what it did, and the state after it.
pub(super) struct Change<'a> {
    about: &'a About,
    effects: &'a Effects,
    after: &'a State,
}

type Check = fn(&Change<'_>) -> Vec<String>;

const CHECKS: [(&str, Check); 11] = [
    ("committed_never_goes_back", committed_never_goes_back::check),
    ("failover_restarts_nothing", failover_restarts_nothing::check),
    ("few_objects_per_step", few_objects_per_step::check),
    ("losses_stay_where_they_are", losses_stay_where_they_are::check),
    ("new_gang_new_fence", new_gang_new_fence::check),
    ("nothing_new_on_closed_nodes", nothing_new_on_closed_nodes::check),
    ("one_rank_per_seat", one_rank_per_seat::check),
    ("refusals_change_nothing", refusals_change_nothing::check),
    ("seats_are_freed_by_word", seats_are_freed_by_word::check),
    ("starts_only_after_its_needs", starts_only_after_its_needs::check),
    ("whole_gangs", whole_gangs::check),
];

/// Names of all invariants.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

impl About {
    /// Keeps of an event what its invariants ask for.
    pub fn of(event: &Event) -> Self {
        let (worker, fence) = match event {
            Event::WorkerAttached { worker, .. }
            | Event::WorkerDetached { worker }
            | Event::WorkerLeft { worker }
            | Event::DeviceWithdrawn { worker, .. } => (Some(worker), None),
            Event::RendezvousPosted { worker, fence, .. }
            | Event::CheckpointReported { worker, fence, .. }
            | Event::Progressed { worker, fence, .. }
            | Event::RankExited { worker, fence, .. } => (Some(worker), Some(fence)),
            Event::Inspected { fence, .. } => (None, Some(fence)),
            Event::TookLead { .. }
            | Event::Applied { .. }
            | Event::CancelRequested { .. }
            | Event::NodeCordoned { .. }
            | Event::NodeUncordoned { .. }
            | Event::Tick => (None, None),
        };
        Self { name: event.name(), worker: worker.cloned(), fence: fence.cloned() }
    }
}

/// Every invariant that the event broke.
pub fn violations(about: &About, effects: &Effects, after: &State) -> Vec<Violation> {
    let change = Change { about, effects, after };
    CHECKS
        .iter()
        .flat_map(|&(invariant, check)| {
            check(&change).into_iter().map(move |seen| Violation { invariant, seen })
        })
        .collect()
}

impl Change<'_> {
    /// Every work that changed: its name, what it was, what it is.
    fn works(&self) -> impl Iterator<Item = (&RunName, WorkId, &Work, &Work)> {
        self.effects
            .before
            .works
            .iter()
            .filter_map(|((run, id), then)| Some((run, *id, then, self.after.work(run, *id)?)))
    }

    /// Whether a worker is being lost: whatever event comes once its time is over takes out its ranks,
    /// in parts if they are many, and itself with the last.
    fn loses(&self, worker: &WorkerId) -> bool {
        let is_out = self.effects.before.workers.contains_key(worker);
        let is_due = |it: &Worker| it.lost_at.is_some_and(|at| at <= self.after.clock);
        is_out || self.after.workers.get(worker).is_some_and(is_due)
    }

    /// Works that were not seated before and are now.
    fn seated(&self) -> impl Iterator<Item = (&RunName, WorkId, &Gang)> {
        self.works().filter_map(|(run, id, then, now)| {
            let is_new = then.gang().is_none() || then.incarnation != now.incarnation;
            Some((run, id, now.gang().filter(|_| is_new)?))
        })
    }
}

fn alive(work: &Work) -> BTreeSet<&Seat> {
    work.gang().into_iter().flat_map(Gang::alive).map(|(_, seat)| seat).collect()
}

#[cfg(test)]
mod tests;
