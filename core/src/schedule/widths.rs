//! Gangs that train on fewer seats than they might, and get more when there are more (G7).
//!
//! A run document may let a gang have fewer ranks than its most (`minRanks`). It takes all if they are free,
//! and waits for all if they soon will be, by who ends or may be asked to leave, but not for ever; then it takes the
//! most that are free and keep the batch, unless with so few it would end later than if it went on waiting. Once it
//! has saved something and there are seats for more, so that nobody who waits for them has to wait longer, it is
//! asked to save and leave, and is seated anew. One gang at a time does so: two would count on the same seats.

use super::index::Facts;
use super::step::Stepper;
use super::{Node, Phase, Run, Stop, Work};
use crate::ids::{Millis, RunName, Seat, WorkId};

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

    /// The widths with which a work may be seated now, widest first.
    pub(super) fn widths(&mut self, name: &RunName, id: WorkId) -> Vec<u32> {
        let Some(run) = self.state.runs.get(name) else { return Vec::new() };
        let all = run.ranks(id);
        if run.least(id) == all {
            return vec![all];
        }
        let width = self.width(run, id);
        let key = (name.clone(), id);
        let was_widened = self.state.widened.as_ref() == Some(&key);
        if width < all && !was_widened && self.is_more_to_come_back(run, id, width) {
            return Vec::new();
        }
        let since = self.state.patient.get(&key).copied().unwrap_or(self.now);
        let is_patient = !was_widened && self.now.0 < since.0 + self.limits.narrow.0;
        if is_patient && (self.victims(run, id, width).is_some() || self.is_soon(run, id, width)) {
            return vec![width];
        }
        let left = self.time_left(name, id).unwrap_or(0);
        let lasts = |ranks| run.stretched(id, left, ranks);
        // Who has lost patience believes only what was measured: a job is always about to end.
        let soonest = self.soonest(run, id, width, is_patient).unwrap_or(u64::MAX);
        let wide = soonest.saturating_add(lasts(width));
        let fewer = |ranks: &u32| {
            let fewer = run.widest(id, ranks.checked_sub(1)?)?;
            (self.now.0.saturating_add(lasts(fewer)) <= wide).then_some(fewer)
        };
        std::iter::successors(Some(width), fewer).collect()
    }

    /// Whether workers without a stream, which are not lost yet, could hold more of its ranks.
    fn is_more_to_come_back(&self, run: &Run, id: WorkId, width: u32) -> bool {
        let requires = run.requires(id);
        let mut seats = self.open_seats(requires);
        let away = self.state.index.losses.iter();
        for worker in away.filter_map(|(_, id)| self.state.workers.get(id)) {
            let is_open = self.state.nodes.get(&worker.offer.node).is_none_or(Node::is_open);
            if is_open && !worker.said_goodbye && requires.accepts(&worker.offer) {
                *seats.entry(worker.offer.kind.clone()).or_default() += worker.usable();
            }
        }
        let most = seats.into_values().max().unwrap_or(0);
        run.widest(id, most).is_some_and(|most| most > width)
    }

    /// Whether it could have so many seats before its patience ends, as far as lengths and paces tell.
    fn is_soon(&self, run: &Run, id: WorkId, ranks: u32) -> bool {
        let soonest = self.soonest(run, id, ranks, true);
        soonest.is_some_and(|at| at <= self.now.0 + self.limits.narrow.0)
    }

    /// When it could have so many seats, as far as lengths and paces tell; and guesses where nobody has measured,
    /// if those are believed.
    fn soonest(&self, run: &Run, id: WorkId, ranks: u32, believes: bool) -> Option<u64> {
        let requires = run.requires(id);
        let kinds = self.open_seats(requires).into_iter().filter(|(_, open)| *open >= ranks);
        kinds.map(|(kind, _)| self.shadow_as(None, ranks, requires, &kind, believes).0).min()
    }

    /// Notes that a work was not seated, so that it waits for more ranks only so long. Its patience is counted
    /// from when it is its turn: until then it waits for others, not for seats.
    pub(super) fn goes_on_waiting(&mut self, name: &RunName, id: WorkId, is_its_turn: bool) {
        let Some(run) = self.state.runs.get(name) else { return };
        if run.least(id) == run.ranks(id) {
            return;
        }
        let key = (name.clone(), id);
        if !is_its_turn {
            self.state.patient.insert(key, self.now);
            return;
        }
        let since = *self.state.patient.entry(key).or_insert(self.now);
        // And again as long after that, if it still would end later with those that are free.
        let patience = self.limits.narrow.0.max(1);
        let over = self.now.0.saturating_sub(since.0) / patience;
        let patience_ends = Millis(since.0 + (over + 1) * patience);
        let losses = self.state.index.losses.first().map(|(at, _)| Millis(at.0 + 1));
        let ends = [Some(patience_ends), losses].into_iter().flatten().filter(|at| *at > self.now);
        self.state.look_again = ends.chain(self.state.look_again).min();
    }

    pub(super) fn waits_no_longer(&mut self, name: &RunName, id: WorkId) {
        let key = (name.clone(), id);
        self.state.patient.remove(&key);
        if self.state.widened.as_ref() == Some(&key) {
            self.state.widened = None;
        }
    }

    pub(super) fn forget_who_waits_no_longer(&mut self) {
        let runs = &self.state.runs;
        self.state.patient.retain(|(run, id), _| {
            let work = runs.get(run).and_then(|run| run.works.get(id));
            work.is_some_and(|work| work.phase == Phase::Waiting)
        });
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
        let is_widened =
            |work: &Work| matches!(work.phase, Phase::Stopping { cause: Stop::Widened { .. }, .. });
        let is_leaving = self.elastic_runs().any(|(_, run, facts)| {
            facts.stopping.iter().any(|id| run.works.get(id).is_some_and(is_widened))
        });
        let last = self.state.widened.as_ref().and_then(|(run, id)| self.state.work(run, *id));
        is_leaving || last.is_some_and(|work| matches!(work.phase, Phase::Inspecting { .. }))
    }

    fn elastic_runs(&self) -> impl Iterator<Item = (&RunName, &Run, &Facts)> {
        let is_elastic = |run: &Run| {
            let gangs = &run.head.spec.spec.gangs;
            gangs.seed.min_ranks.is_some() || gangs.expert.min_ranks.is_some()
        };
        let runs = self.state.runs.iter().filter(move |(_, run)| is_elastic(run));
        runs.filter_map(|(name, run)| Some((name, run, self.state.index.run(name)?)))
    }

    /// The gang that should have more ranks than it has, and how many: the most urgent, then the one with most left.
    fn narrow_gang(&self) -> Option<(RunName, WorkId, u32)> {
        let mut first = None;
        let mut found = None;
        for (name, run, facts) in self.elastic_runs() {
            for &id in &facts.running {
                let Some(to) = self.could_have(name, run, id) else { continue };
                let order = Some((run.head.spec.spec.priority, self.time_left(name, id)));
                if order > first {
                    first = order;
                    found = Some((name.clone(), id, to));
                }
            }
        }
        found
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
            && self.delays_nobody(name, run, id, to, kind))
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

    /// Whether a gang that leaves to have `to` ranks gets them, and who waits for the free seats of its kind has
    /// its own no later: what placement will ask once it has left.
    fn delays_nobody(&self, name: &RunName, run: &Run, id: WorkId, to: u32, kind: &str) -> bool {
        let Some((other, work)) = self.state.kept.get(kind) else { return true };
        let Some(ahead) = self.state.runs.get(other) else { return true };
        if ahead.head.spec.spec.priority < run.head.spec.spec.priority {
            return true;
        }
        let (ranks, requires) = (self.width(ahead, *work), ahead.requires(*work));
        let own = self.state.work(name, id).and_then(Work::gang);
        let own = own.into_iter().flat_map(super::Gang::alive).filter(|(_, seat)| {
            let worker = self.state.workers.get(&seat.worker);
            worker.is_some_and(|worker| requires.accepts(&worker.offer))
        });
        let own = u32::try_from(own.count()).unwrap_or(u32::MAX);
        if self.free_for(requires, kind).saturating_add(own) >= ranks {
            // It would take them all.
            return false;
        }
        let (at, spare) = self.shadow_without(Some((name, id)), ranks, requires, kind);
        self.expected_end(name, id, to) <= at || to <= spare
    }
}
