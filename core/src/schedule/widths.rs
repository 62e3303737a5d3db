//! Gangs that train on fewer seats than they might, and get more when there are more (G7).
//!
//! A run document may let a gang have fewer ranks than its most (`minRanks`). It takes all if they are free,
//! and waits for all if they soon will be; if not, it takes the most that are free and keep the batch. Once it
//! has saved something and there are seats for more, so that nobody who waits for them has to wait longer, it is
//! asked to save and leave, and is seated anew. One gang at a time does so: two would count on the same seats.

use super::step::Stepper;
use super::{Node, Phase, Run, Stop};
use crate::ids::{RunName, Seat, WorkId};

impl Stepper<'_> {
    /// Seats that a work waits for: all of its ranks if the workers there are could hold them, else the
    /// most that they could.
    pub(super) fn width(&self, run: &Run, id: WorkId) -> u32 {
        let all = run.ranks(id);
        if run.least(id) == all {
            return all;
        }
        let open = self.open_seats(run.requires(id)).into_values().max().unwrap_or(0);
        run.widest(id, open).unwrap_or(all)
    }

    /// The next width below `ranks`, for which nothing was found, that a work should try.
    pub(super) fn fewer(&self, name: &RunName, id: WorkId, ranks: u32) -> Option<u32> {
        let run = self.state.runs.get(name)?;
        let fewer = run.widest(id, ranks.checked_sub(1)?)?;
        if ranks < self.width(run, id) {
            return Some(fewer);
        }
        // All that it could have are taken: for how long?
        let requires = run.requires(id);
        let kinds = self.open_seats(requires).into_iter().filter(|(_, open)| *open >= ranks);
        let soonest = kinds.map(|(kind, _)| self.shadow(ranks, &kind).0).min();
        let is_soon = soonest.is_some_and(|at| at <= self.now.0 + self.limits.narrow.0);
        (!is_soon).then_some(fewer)
    }

    /// Asks a gang for which there are more seats than it has to save and leave, so that it gets them.
    pub(super) fn widen(&mut self) {
        // Whoever waits is seated first; and the last that was asked must have found its seats.
        if self.state.unsettled || self.is_widening() || !self.has_room() {
            return;
        }
        let Some((run, id, to)) = self.narrow_gang() else { return };
        self.state.widened = Some((run.clone(), id));
        self.stop_gang(&run, id, Stop::Widened { to });
    }

    fn is_widening(&self) -> bool {
        let Some((run, id)) = &self.state.widened else { return false };
        self.state.work(run, *id).is_some_and(|work| match &work.phase {
            Phase::Stopping { cause, .. } => matches!(cause, Stop::Widened { .. }),
            Phase::Inspecting { .. } => true,
            Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Running(_)
            | Phase::Done
            | Phase::Failed { .. } => false,
        })
    }

    /// A gang that could have more ranks than it has, and how many.
    fn narrow_gang(&self) -> Option<(RunName, WorkId, u32)> {
        for (name, run) in &self.state.runs {
            let gangs = &run.head.spec.spec.gangs;
            let Some(facts) = self.state.index.run(name) else { continue };
            if gangs.seed.min_ranks.is_none() && gangs.expert.min_ranks.is_none() {
                continue;
            }
            let mut running = facts.running.iter();
            let found = running.find_map(|&id| Some((id, self.could_have(name, run, id)?)));
            if let Some((id, to)) = found {
                return Some((name.clone(), id, to));
            }
        }
        None
    }

    fn could_have(&self, name: &RunName, run: &Run, id: WorkId) -> Option<u32> {
        let work = run.works.get(&id)?;
        let gang = work.gang()?;
        let ranks = u32::try_from(gang.seats.len()).ok()?;
        if ranks >= run.ranks(id) {
            return None;
        }
        // What it has done since it was seated must not be lost.
        let has_saved = work.committed.last().is_some_and(|it| it.incarnation == work.incarnation);
        if !has_saved {
            return None;
        }
        let state = &self.state;
        let kind = &state.workers.get(&gang.seats.first()?.worker)?.offer.kind;
        let is_good = |seat: &&Seat| {
            state.workers.get(&seat.worker).is_some_and(|worker| {
                worker.lost_at.is_none()
                    && !worker.withdrawn.contains_key(&seat.slot)
                    && state.nodes.get(&worker.offer.node).is_none_or(Node::is_open)
            })
        };
        let own = u32::try_from(gang.seats.iter().filter(is_good).count()).ok()?;
        let to = run.widest(id, own + self.free_for(run.requires(id), kind))?;
        (to > ranks
            && self.is_worth_it(name, id, ranks, to)
            && self.delays_nobody(name, id, to, kind))
        .then_some(to)
    }

    /// Whether more ranks save a gang much more time than it takes to leave and start again.
    fn is_worth_it(&self, name: &RunName, id: WorkId, ranks: u32, to: u32) -> bool {
        let Some(left) = self.time_left(name, id) else { return false };
        let saved = left.saturating_mul(u64::from(to - ranks)) / u64::from(to);
        let seen = self.state.seen.get(&(name.clone(), id));
        let start = seen.and_then(super::progress::Seen::start).unwrap_or(self.limits.narrow.0 / 2);
        saved >= 2 * start
    }

    /// Whether who waits for the free seats of `kind` has all of its seats as soon as it would have them if
    /// none of the free ones were taken.
    fn delays_nobody(&self, name: &RunName, id: WorkId, to: u32, kind: &str) -> bool {
        let Some((other, work)) = self.state.kept.get(kind) else { return true };
        let Some(run) = self.state.runs.get(other) else { return true };
        let (at, _) = self.shadow(self.width(run, *work), kind);
        self.expected_end(name, id, to) <= at
    }
}
