//! Who sits where: whole gangs or nothing.
//!
//! Runs of a higher priority first. Within a priority jobs go before models, since they are short and
//! experts wait for them; models go by the time left to them, longest first, so that the last to
//! finish started early. A gang that does not fit yet is not overtaken, except by models that will
//! be done before its seats are free (backfill). If gangs of a lower priority hold what it needs, they
//! are asked to save and leave.

use std::ops::Bound;

use super::index::{JobQueue, ReadyModel};
use super::pool::Wish;
use super::step::Stepper;
use super::{Action, Gang, Phase, Stop};
use crate::ids::{NodeName, RunName, Seat, WorkId, WorkerId};

/// Models that are looked at after the first that does not fit.
const DEPTH: u32 = 32;

/// One round of placement: how far it has come.
#[derive(Default)]
struct Round {
    jobs: Option<JobQueue>,
    models: Option<ReadyModel>,
    /// The first model that waits for seats it could have.
    head: Option<Head>,
    looked: u32,
}

struct Head {
    /// When it will have its seats, and how many will be free then beyond its own; none if nobody can tell.
    shadow: Option<(u64, u32)>,
}

enum Candidate {
    Jobs(JobQueue, WorkId),
    Model(ReadyModel),
}

impl Stepper<'_> {
    /// Seats every ready work that fits, as much as one transaction takes.
    pub(super) fn place(&mut self) {
        if !self.state.unsettled {
            return;
        }
        let mut round = Round::default();
        while round.looked <= DEPTH {
            if !self.has_room() {
                self.effects.more = true;
                return;
            }
            let Some(candidate) = self.next(&round) else { break };
            match candidate {
                Candidate::Jobs(queue, job) => {
                    if self.seat(&queue.run, job) {
                        continue;
                    }
                    if round.jobs.is_none() {
                        self.preempt_for(&queue.run, job);
                    }
                    round.jobs = Some(queue);
                    round.looked += 1;
                }
                Candidate::Model(model) => {
                    if self.may_go(&mut round, &model) && self.seat(&model.run, model.work) {
                        continue;
                    }
                    self.wait_behind(&mut round, &model);
                    round.models = Some(model);
                }
            }
            if self.state.index.pools.free() == 0 && round.head.is_some() {
                break;
            }
        }
        self.state.unsettled = false;
    }

    /// The next work in order, after what the round has passed over.
    fn next(&self, round: &Round) -> Option<Candidate> {
        let index = &self.state.index;
        let after = |queue: &Option<JobQueue>| queue.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let jobs = index.jobs.range((after(&round.jobs), Bound::Unbounded)).next();
        let jobs = jobs.filter(|_| round.head.is_none());
        let from = round.models.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let model = index.models.range((from, Bound::Unbounded)).next();
        match (jobs, model) {
            (Some((queue, _)), Some(model)) if model.priority < queue.priority => {
                Some(Candidate::Model(model.clone()))
            }
            (Some((queue, jobs)), _) => {
                Some(Candidate::Jobs(queue.clone(), *jobs.first()?))
            }
            (None, Some(model)) => Some(Candidate::Model(model.clone())),
            (None, None) => None,
        }
    }

    /// Whether a model may be seated now: nothing waits before it, or it delays nobody.
    fn may_go(&mut self, round: &mut Round, model: &ReadyModel) -> bool {
        let now = self.now.0;
        let ranks = self.ranks(model);
        let Some(head) = &mut round.head else { return true };
        round.looked += 1;
        let Some((at, spare)) = &mut head.shadow else { return false };
        let has_pace = self.state.index.run(&model.run).is_some_and(|facts| facts.pace.is_some());
        let ends = now.saturating_add(model.left.0 / 1_000);
        let is_short = has_pace && ends <= *at;
        if !is_short && ranks > *spare {
            return false;
        }
        if !is_short {
            *spare -= ranks;
        }
        true
    }

    fn ranks(&self, model: &ReadyModel) -> u32 {
        self.state.runs.get(&model.run).map_or(u32::MAX, |run| run.ranks(model.work))
    }

    /// Makes a model that found no seats the head of the line, unless it waits for more machines.
    fn wait_behind(&mut self, round: &mut Round, model: &ReadyModel) {
        if round.head.is_some() {
            return;
        }
        let Some(run) = self.state.runs.get(&model.run) else { return };
        let ranks = run.ranks(model.work);
        let capacity = self.state.index.capacity(&self.state.workers, run.requires(model.work));
        if ranks > capacity {
            round.looked += 1;
            return;
        }
        self.preempt_for(&model.run, model.work);
        let shadow = self.shadow(&model.run, model.work, ranks);
        round.head = Some(Head { shadow });
    }

    /// When enough of the running gangs will have ended to seat `ranks`, by their pace.
    fn shadow(&self, run: &RunName, work: WorkId, ranks: u32) -> Option<(u64, u32)> {
        if self.state.index.pools.free() == 0 {
            return None;
        }
        let requires = self.state.runs.get(run)?.requires(work);
        let accepts = |kind: &str| requires.accepts_kind(kind);
        let mut free = self.state.index.pools.free_of(&accepts);
        let mut ends: Vec<(u64, u32)> = Vec::new();
        for (name, run) in &self.state.runs {
            let Some(facts) = self.state.index.run(name) else { continue };
            for id in &facts.running {
                let Some(gang) = run.works.get(id).and_then(super::Work::gang) else { continue };
                let here = gang.alive().filter(|(_, seat)| {
                    let worker = self.state.workers.get(&seat.worker);
                    worker.is_some_and(|it| accepts(&it.offer.kind))
                });
                let seats = u32::try_from(here.count()).unwrap_or(u32::MAX);
                if let Some(end) = self.expected_end(name, *id).filter(|_| seats > 0) {
                    ends.push((end, seats));
                }
            }
        }
        ends.sort_unstable();
        for (end, seats) in ends {
            free += seats;
            if free >= ranks {
                return Some((end, free - ranks));
            }
        }
        None
    }

    fn expected_end(&self, name: &RunName, id: WorkId) -> Option<u64> {
        let run = self.state.runs.get(name)?;
        let model = id.model()?;
        let pace = self.state.index.run(name)?.pace?;
        let reached = self.state.seen.get(&(name.clone(), id))?.reached();
        let committed = run.works.get(&id)?.committed_step().0;
        let left = run.due(model).0.saturating_sub(reached.max(committed));
        Some(self.now.0.saturating_add(left.saturating_mul(pace) / 1_000))
    }

    /// Takes seats for a whole gang and starts it, or changes nothing.
    fn seat(&mut self, name: &RunName, id: WorkId) -> bool {
        let Some(seats) = self.find_seats(name, id) else { return false };
        let gang = Gang { seats: seats.clone(), ..Gang::default() };
        self.change(name, id, |work| work.phase = Phase::Running(gang));
        for (rank, seat) in (0..).zip(seats) {
            if let Some(start) = self.start(name, id, rank, seat) {
                self.act(Action::StartRank(start));
            }
        }
        true
    }

    fn find_seats(&self, name: &RunName, id: WorkId) -> Option<Vec<Seat>> {
        let run = self.state.runs.get(name)?;
        let work = run.works.get(&id)?;
        let (requires, ranks) = (run.requires(id), run.ranks(id));
        let pools = &self.state.index.pools;
        if pools.free() < ranks {
            return None;
        }
        let nodes = &self.state.nodes;
        let is_slow = |node: &NodeName| {
            nodes.get(node).is_some_and(|node| node.slower_percent.is_some())
        };
        let is_avoided = |node: &NodeName| work.avoid.as_ref() == Some(node) || is_slow(node);
        let will_do = |worker: &WorkerId| {
            self.state.workers.get(worker).is_some_and(|it| requires.accepts(&it.offer))
        };
        let strict = |worker: &WorkerId, node: &NodeName| will_do(worker) && !is_avoided(node);
        let lenient = |worker: &WorkerId, _: &NodeName| will_do(worker);
        let accepts_kind = |kind: &str| requires.accepts_kind(kind);
        let wish = Wish { ranks, accepts_kind: &accepts_kind, accepts: &strict, home: &work.home };
        pools.find(&wish).or_else(|| pools.find(&Wish { accepts: &lenient, ..wish }))
    }

    /// Asks gangs of lower priorities to save and leave, if that makes room for `id`.
    fn preempt_for(&mut self, name: &RunName, id: WorkId) {
        let Some(run) = self.state.runs.get(name) else { return };
        let priority = run.head.spec.spec.priority;
        let (requires, ranks) = (run.requires(id), run.ranks(id));
        let is_lower = |run: &&super::Run| run.head.spec.spec.priority < priority;
        if !self.state.runs.values().any(|run| is_lower(&run)) {
            return;
        }
        let will_do = |seat: &Seat| {
            let worker = self.state.workers.get(&seat.worker);
            worker.is_some_and(|it| {
                it.lost_at.is_none()
                    && !it.withdrawn.contains_key(&seat.slot)
                    && requires.accepts(&it.offer)
                    && self.state.nodes.get(&it.offer.node).is_none_or(super::Node::is_open)
            })
        };
        let mut coming = self.state.index.pools.free_of(&|kind| requires.accepts_kind(kind));
        let mut victims: Vec<(i32, std::cmp::Reverse<u32>, RunName, WorkId)> = Vec::new();
        for (other, found) in &self.state.runs {
            for (&it, work) in &found.works {
                let Some(gang) = work.gang() else { continue };
                let seats = gang.alive().filter(|(_, seat)| will_do(seat)).count();
                let seats = u32::try_from(seats).unwrap_or(u32::MAX);
                if matches!(work.phase, Phase::Stopping { .. }) {
                    coming += seats;
                } else if is_lower(&found) && it.model().is_some() && seats > 0 {
                    let priority = found.head.spec.spec.priority;
                    victims.push((priority, std::cmp::Reverse(seats), other.clone(), it));
                }
            }
        }
        victims.sort();
        let enough = victims.iter().scan(coming, |coming, (_, seats, ..)| {
            let missing = *coming < ranks;
            *coming += seats.0;
            Some((missing, *coming))
        });
        let enough: Vec<(bool, u32)> = enough.collect();
        if enough.last().is_none_or(|(_, all)| *all < ranks) {
            return;
        }
        for ((_, _, run, work), _) in
            victims.into_iter().zip(enough).filter(|(_, (missing, _))| *missing)
        {
            if !self.has_room() {
                self.effects.more = true;
                return;
            }
            let cause = Stop::Preempted { by: name.clone(), work: id };
            self.stop_gang(&run, work, cause);
        }
    }
}
