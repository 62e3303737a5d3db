//! Gangs that make way for one that has more left to do.
//!
//! Longest first alone can end badly: of three equal experts on seats for two, the third starts when the
//! others are done. The best end there is, the *horizon*, is when all work spread over all seats is done, or
//! the longest model if that takes longer. A model that waits can do so until what is left to it reaches to
//! the horizon; from then on each minute makes the end later. So then, and not before, gangs that have much
//! less left are asked to save and leave. If all gangs are equally wide that reaches the horizon, and each
//! model makes others leave about once.
//!
//! Only within one priority (priorities are for others to judge), and never for a model that has failed since
//! its last checkpoint: what a failure costs stays where it was (G6).
//!
//! Two gangs never make way for each other in turn without end: who leaves has saved something since it was
//! seated, and is ahead by what it has saved, so each turn ends with more saved than the one before. And seats
//! are asked for only in the order in which placement gives them away: those it would keep for another are
//! never emptied for nothing.

use std::collections::BTreeMap;

use super::index::ReadyModel;
use super::placement::DEPTH;
use super::step::Stepper;
use super::{Node, Phase, Stop};
use crate::ids::{Millis, RunName, Seat, WorkId, WorkerId};
use crate::spec::Requires;

/// Between two looks, as a part of [`super::Limits::way`]: leaving and starting again takes about as long.
const LOOKS: u64 = 10;

/// A gang makes way only if it has this part of the other's time less left to it, and at least
/// [`super::Limits::way`]: what a turn gains must be well above what it costs.
const PART: u64 = 32;

/// One kind of device, as the models of one priority use it.
#[derive(Debug, Default)]
struct Weighed {
    /// Seats that they may have.
    capacity: u64,
    /// Seat-milliseconds of all that is left.
    total: u128,
    longest: u64,
    /// Whose seats will be free in a moment.
    leaving: Vec<Gone>,
    /// Seats, free or soon to be, that models before have been given.
    given: u32,
    /// Placement keeps what is free for a model before, which nobody makes way for.
    is_kept: bool,
    running: Vec<Gone>,
}

/// A gang that could make way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Gone {
    /// Of what it has saved: more may be lost when it leaves.
    left: u64,
    run: RunName,
    work: WorkId,
}

impl Weighed {
    fn add(&mut self, seats: u32, left: u64) {
        self.total += u128::from(left) * u128::from(seats);
        self.longest = self.longest.max(left);
    }

    /// How long it takes at best until all is done.
    fn horizon(&self) -> u64 {
        let spread = self.total / u128::from(self.capacity.max(1));
        u64::try_from(spread).unwrap_or(u64::MAX).max(self.longest)
    }
}

impl Stepper<'_> {
    /// Asks gangs to save and leave for those that can wait no longer.
    pub(super) fn make_way(&mut self) {
        let is_early = self.now.0 < self.state.weighed.0.saturating_add(self.look());
        // Whoever can be seated will be, before anybody is asked to leave.
        if is_early || self.state.unsettled {
            return;
        }
        let Some(first) = self.state.index.models.first() else { return };
        self.state.weighed = self.now;
        let waiting = self.state.index.models.iter();
        let waiting = waiting.take_while(|it| it.priority == first.priority);
        let waiting: Vec<ReadyModel> = waiting.cloned().collect();
        let priority = first.priority.0;
        let Some(mut kinds) = self.weigh(priority, &waiting) else { return };
        let depth = usize::try_from(DEPTH).unwrap_or(usize::MAX);
        for model in waiting.iter().take(depth) {
            if !self.make_way_for(model, &mut kinds) {
                return;
            }
        }
    }

    /// Returns whether there is room to go on.
    fn make_way_for(&mut self, model: &ReadyModel, kinds: &mut BTreeMap<String, Weighed>) -> bool {
        let Some(run) = self.state.runs.get(&model.run) else { return true };
        let Some(work) = run.works.get(&model.work) else { return true };
        let (ranks, requires) = (self.width(run, model.work), run.requires(model.work).clone());
        let left = self.time_left(&model.run, model.work).filter(|_| work.fruitless == 0);
        let open = self.open_seats(&requires);
        let is_wide_enough = |kind: &str| open.get(kind).is_some_and(|open| *open >= ranks);
        for (kind, weighed) in kinds.iter_mut().filter(|(kind, _)| is_wide_enough(kind)) {
            if weighed.is_kept {
                continue;
            }
            let leaving = weighed.leaving.iter().map(|it| self.seats_for(it, &requires, kind));
            let coming = self.free_for(&requires, kind) + leaving.sum::<u32>();
            let coming = coming.saturating_sub(weighed.given);
            if coming >= ranks {
                weighed.given += ranks;
                return true;
            }
            let can_wait = |left: &u64| left.saturating_add(self.look()) < weighed.horizon();
            let asked = left
                .filter(|left| !can_wait(left))
                .and_then(|left| self.whom_to_ask(weighed, left, ranks - coming, &requires, kind));
            let Some(asked) = asked else {
                weighed.is_kept = true;
                continue;
            };
            weighed.given += ranks;
            weighed.running.retain(|it| !asked.contains(it));
            weighed.leaving.extend(asked.iter().cloned());
            for gone in asked {
                if !self.has_room() {
                    self.effects.more = true;
                    // The rest is asked at once, not a look later.
                    self.state.weighed = Millis(0);
                    return false;
                }
                let cause = Stop::Preempted { by: model.run.clone(), work: model.work };
                self.stop_gang(&gone.run, gone.work, cause);
            }
            return true;
        }
        true
    }

    /// Gangs that have much less left than `left`, and so many of the wanted seats together.
    fn whom_to_ask(
        &self,
        weighed: &Weighed,
        left: u64,
        missing: u32,
        requires: &Requires,
        kind: &str,
    ) -> Option<Vec<Gone>> {
        let margin = self.limits.way.0.max(left / PART);
        let far_ahead = weighed.running.iter();
        let far_ahead = far_ahead.take_while(|it| it.left.saturating_add(margin) <= left);
        let (mut found, mut asked) = (0, Vec::new());
        for gone in far_ahead {
            let seats = self.seats_for(gone, requires, kind);
            if found < missing && seats > 0 {
                found += seats;
                asked.push((seats, gone.clone()));
            }
        }
        // A wide one at the end may be enough without those before it.
        asked.retain(|(seats, _)| {
            let is_needed = found < missing + seats;
            found -= if is_needed { 0 } else { *seats };
            is_needed
        });
        (found >= missing).then(|| asked.into_iter().map(|(_, gone)| gone).collect())
    }

    const fn look(&self) -> u64 {
        self.limits.way.0 / LOOKS
    }

    /// What is left to the models of a priority that wait or run, by kind of device.
    fn weigh(&self, priority: i32, waiting: &[ReadyModel]) -> Option<BTreeMap<String, Weighed>> {
        let (state, index) = (&self.state, &self.state.index);
        let mut kinds: BTreeMap<String, Weighed> = BTreeMap::new();
        for (kind, capacity) in self.open_seats(&Requires::default()) {
            let capacity = u64::from(capacity);
            kinds.insert(kind, Weighed { capacity, ..Weighed::default() });
        }
        for model in waiting {
            let left = self.time_left(&model.run, model.work)?;
            let run = state.runs.get(&model.run)?;
            let requires = run.requires(model.work);
            for (_, weighed) in kinds.iter_mut().filter(|(kind, _)| requires.accepts_kind(kind)) {
                weighed.add(run.ranks(model.work), left);
            }
        }
        for (name, run) in &state.runs {
            let Some(facts) = index.run(name) else { continue };
            let is_equal = run.head.spec.spec.priority == priority;
            for &id in facts.running.iter().chain(&facts.stopping) {
                let Some(work) = run.works.get(&id) else { continue };
                let Some(gang) = work.gang() else { continue };
                let kind = gang.seats.first().and_then(|seat| state.workers.get(&seat.worker));
                let Some(weighed) = kind.and_then(|it| kinds.get_mut(&it.offer.kind)) else {
                    continue;
                };
                let seats = u32::try_from(gang.alive().count()).unwrap_or(u32::MAX);
                if id.model().is_none() || !is_equal {
                    weighed.capacity = weighed.capacity.saturating_sub(u64::from(seats));
                    continue;
                }
                let left = self.time_left(name, id)?;
                weighed.add(seats, left);
                let saved = self.time_left_from(name, id, 0)?;
                let gone = Gone { left: saved, run: name.clone(), work: id };
                let newest = work.committed.last();
                if matches!(work.phase, Phase::Stopping { .. }) || left < self.limits.way.0 {
                    weighed.leaving.push(gone);
                } else if newest.is_some_and(|it| it.incarnation == work.incarnation) {
                    weighed.running.push(gone);
                }
            }
        }
        for weighed in kinds.values_mut() {
            weighed.running.sort();
        }
        Some(kinds)
    }

    /// Free seats that would do.
    pub(super) fn free_for(&self, requires: &Requires, kind: &str) -> u32 {
        if requires.is_empty() {
            return self.state.index.pools.free_of(&|it| it == kind);
        }
        let accepts = |id: &WorkerId| {
            self.state.workers.get(id).is_some_and(|worker| requires.accepts(&worker.offer))
        };
        self.state.index.pools.free_with(kind, &accepts)
    }

    /// Seats of a gang that would do.
    fn seats_for(&self, gone: &Gone, requires: &Requires, kind: &str) -> u32 {
        let will_do = |seat: &Seat| {
            self.state.workers.get(&seat.worker).is_some_and(|worker| {
                worker.lost_at.is_none()
                    && worker.offer.kind == kind
                    && !worker.withdrawn.contains_key(&seat.slot)
                    && requires.accepts(&worker.offer)
                    && self.state.nodes.get(&worker.offer.node).is_none_or(Node::is_open)
            })
        };
        let gang = self.state.work(&gone.run, gone.work).and_then(super::Work::gang);
        let seats = gang.into_iter().flat_map(super::Gang::alive);
        let seats = seats.filter(|(_, seat)| will_do(seat)).count();
        u32::try_from(seats).unwrap_or(u32::MAX)
    }

    /// Milliseconds that are left to a model while it runs; of a run that nobody has seen step, as
    /// placement takes it to be.
    pub(super) fn time_left(&self, name: &RunName, id: WorkId) -> Option<u64> {
        let seen = self.state.seen.get(&(name.clone(), id));
        self.time_left_from(name, id, seen.map_or(0, super::progress::Seen::reached))
    }

    /// The same from a step, or from what is saved if that is more.
    fn time_left_from(&self, name: &RunName, id: WorkId, reached: u64) -> Option<u64> {
        let run = self.state.runs.get(name)?;
        let pace = self.state.index.run(name)?.pace.unwrap_or(super::index::PACE);
        let work = run.works.get(&id)?;
        let model = id.model()?;
        let steps = run.steps_left(model, reached.max(work.committed_step().0));
        let ranks =
            work.gang().map_or(run.ranks(id), |gang| gang.seats.len().try_into().unwrap_or(0));
        Some(run.stretched(id, steps.saturating_mul(pace) / 1_000, ranks))
    }
}

#[cfg(test)]
mod tests;
