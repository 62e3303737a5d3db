//! Who sits where: whole gangs or nothing.
//!
//! Runs of a higher priority first. Within a priority jobs go before models, since they are short and
//! experts wait for them; models go by the time left to them, longest first, so that the last to
//! finish started early. Seats of the kinds a model waits for are kept for it: nobody after it takes
//! them, except who will be done before they suffice, or who leaves it enough (backfill). If gangs of
//! a lower priority hold what it needs, they are asked to save and leave.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::gang::gang_spec;
use super::index::{JobQueue, ReadyModel};
use super::pool::Wish;
use super::step::Stepper;
use super::{Action, Gang, Phase, Stop};
use crate::ids::{NodeName, RunName, Seat, WorkId, WorkerId};
use crate::spec::Requires;

/// Works that are looked at after the first that does not fit.
pub(super) const DEPTH: u32 = 32;

/// What a job is taken to last, in milliseconds: nobody measures them, and they are made to be short.
const JOB: u64 = 60_000;

/// What a model is taken to last that has not taken a step yet.
const UNKNOWN: u64 = 3_600_000;

/// One round of placement: how far it has come.
#[derive(Default)]
struct Round {
    jobs: Option<JobQueue>,
    models: Option<ReadyModel>,
    /// Kinds of devices of which free seats are kept, each for the first model that waits for more.
    kept: BTreeMap<String, Kept>,
    looked: u32,
}

struct Kept {
    run: RunName,
    work: WorkId,
    ranks: u32,
    /// When it will have its seats, and how many will be free then beyond its own. Asked for only
    /// if somebody else could use a seat meanwhile.
    shadow: Option<(u64, u32)>,
}

enum Candidate {
    Job(JobQueue, WorkId),
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
                Candidate::Job(queue, job) => {
                    if self.seat(&mut round, &queue.run, job) {
                        continue;
                    }
                    if round.jobs.is_none() {
                        self.preempt_for(&queue.run, job);
                    }
                    round.jobs = Some(queue);
                    round.looked += 1;
                }
                Candidate::Model(model) => {
                    if self.seat(&mut round, &model.run, model.work) {
                        continue;
                    }
                    self.keep_seats(&mut round, &model);
                    round.models = Some(model);
                }
            }
            if self.state.index.pools.free() == 0 && !round.kept.is_empty() {
                break;
            }
        }
        let kept = round.kept.into_iter().map(|(kind, it)| (kind, (it.run, it.work)));
        self.state.kept = kept.collect();
        self.forget_who_waits_no_longer();
        self.state.unsettled = false;
    }

    /// The next work in order, after what the round has passed over.
    fn next(&self, round: &Round) -> Option<Candidate> {
        let index = &self.state.index;
        let from = round.jobs.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let jobs = index.jobs.range((from, Bound::Unbounded)).next();
        let from = round.models.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let model = index.models.range((from, Bound::Unbounded)).next();
        match (jobs, model) {
            (Some((queue, _)), Some(model)) if model.priority < queue.priority => {
                Some(Candidate::Model(model.clone()))
            }
            (Some((queue, jobs)), _) => Some(Candidate::Job(queue.clone(), *jobs.first()?)),
            (None, Some(model)) => Some(Candidate::Model(model.clone())),
            (None, None) => None,
        }
    }

    /// Keeps the free seats of every kind on which a model could be seated once others have ended.
    fn keep_seats(&mut self, round: &mut Round, model: &ReadyModel) {
        round.looked += 1;
        let Some(run) = self.state.runs.get(&model.run) else { return };
        let (ranks, requires) = (self.width(run, model.work), run.requires(model.work).clone());
        let mut is_first = false;
        for (kind, open) in self.open_seats(&requires) {
            if open < ranks || round.kept.contains_key(&kind) {
                continue;
            }
            is_first = true;
            let (run, work) = (model.run.clone(), model.work);
            round.kept.insert(kind, Kept { run, work, ranks, shadow: None });
        }
        if is_first {
            self.preempt_for(&model.run, model.work);
        }
    }

    /// Seats, free or taken, of workers with a stream on open nodes that meet `requires`, by kind.
    pub(super) fn open_seats(&self, requires: &Requires) -> BTreeMap<String, u32> {
        let (index, workers) = (&self.state.index, &self.state.workers);
        let is_closed = |node: &NodeName| {
            self.state.nodes.get(node).is_some_and(|node| !super::Node::is_open(node))
        };
        let mut seats = BTreeMap::new();
        if !requires.labels.is_empty() || requires.memory_gib.is_some() {
            let good = workers.values().filter(|it| {
                it.lost_at.is_none() && requires.accepts(&it.offer) && !is_closed(&it.offer.node)
            });
            for worker in good {
                *seats.entry(worker.offer.kind.clone()).or_default() += worker.usable();
            }
            return seats;
        }
        seats.extend(index.capacities().filter(|(kind, _)| requires.accepts_kind(kind)));
        // Few are away or closed: they are taken off what all have together.
        let away = index.losses.iter().map(|(_, id)| id);
        let closed = self.state.nodes.iter().filter(|(_, node)| !super::Node::is_open(node));
        let closed = closed.flat_map(|(name, _)| index.workers_at(name));
        let is_here = |id: &&WorkerId| workers.get(*id).is_some_and(|it| it.lost_at.is_none());
        for worker in away.chain(closed.filter(is_here)).filter_map(|id| workers.get(id)) {
            if let Some(seats) = seats.get_mut(&worker.offer.kind) {
                *seats -= worker.usable();
            }
        }
        seats
    }

    /// Whether a work may take seats that are kept for another: it will be done before that one could
    /// have begun, or leaves it enough.
    fn may_fill(
        &mut self,
        kept: &mut Kept,
        kind: &str,
        name: &RunName,
        id: WorkId,
        ranks: u32,
    ) -> bool {
        if kept.shadow.is_none() {
            let requires = self.state.runs.get(&kept.run).map(|run| run.requires(kept.work));
            let requires = requires.cloned().unwrap_or_default();
            kept.shadow = Some(self.shadow(kept.ranks, &requires, kind));
        }
        let Some((at, spare)) = &mut kept.shadow else { return false };
        if self.expected_end(name, id, ranks) <= *at {
            return true;
        }
        if ranks > *spare {
            return false;
        }
        *spare -= ranks;
        true
    }

    /// When enough of what runs on `kind` will have ended to seat `ranks` that require so much, and how many such
    /// seats beyond.
    pub(super) fn shadow(&self, ranks: u32, requires: &Requires, kind: &str) -> (u64, u32) {
        self.shadow_without(None, ranks, requires, kind)
    }

    /// The same as if one gang had left.
    pub(super) fn shadow_without(
        &self,
        gone: Option<(&RunName, WorkId)>,
        ranks: u32,
        requires: &Requires,
        kind: &str,
    ) -> (u64, u32) {
        self.shadow_as(gone, ranks, requires, kind, true)
    }

    /// The same; who believes no guesses takes what nobody has measured to last for ever.
    pub(super) fn shadow_as(
        &self,
        gone: Option<(&RunName, WorkId)>,
        ranks: u32,
        requires: &Requires,
        kind: &str,
        believes: bool,
    ) -> (u64, u32) {
        let mut free = self.free_for(requires, kind);
        let mut ends: Vec<(u64, u32)> = Vec::new();
        for (name, run) in &self.state.runs {
            let Some(facts) = self.state.index.run(name) else { continue };
            for &id in facts.running.iter().chain(&facts.stopping) {
                let gang = run.works.get(&id).and_then(super::Work::gang);
                let all = gang.map_or(0, |gang| gang.seats.len());
                let will_do = gang.into_iter().flat_map(Gang::alive).filter(|(_, seat)| {
                    let worker = self.state.workers.get(&seat.worker);
                    worker.is_some_and(|it| it.offer.kind == kind && requires.accepts(&it.offer))
                });
                let [all, seats] =
                    [all, will_do.count()].map(|it| u32::try_from(it).unwrap_or(u32::MAX));
                if gone == Some((name, id)) {
                    free += seats;
                } else if seats > 0 {
                    let is_measured = id.model().is_some() && facts.pace.is_some();
                    let end = if believes || is_measured {
                        self.expected_end(name, id, all)
                    } else {
                        u64::MAX
                    };
                    ends.push((end, seats));
                }
            }
        }
        ends.sort_unstable();
        for (end, seats) in ends {
            free += seats;
            if free >= ranks {
                return (end, free - ranks);
            }
        }
        (u64::MAX, 0)
    }

    /// When a work will be done, if it runs from now on with `ranks`; or gone, if it is leaving.
    pub(super) fn expected_end(&self, name: &RunName, id: WorkId, ranks: u32) -> u64 {
        let now = self.now.0;
        let Some(run) = self.state.runs.get(name) else { return now };
        let Some(work) = run.works.get(&id) else { return now };
        if matches!(work.phase, Phase::Stopping { .. }) {
            return now + gang_spec(run, id).grace.millis();
        }
        let Some(model) = id.model() else { return now + JOB };
        let pace = self.state.index.run(name).and_then(|facts| facts.pace);
        let Some(pace) = pace else { return now + UNKNOWN };
        let seen = self.state.seen.get(&(name.clone(), id));
        let reached = seen.map_or(0, super::progress::Seen::reached).max(work.committed_step().0);
        let left = run.steps_left(model, reached);
        now.saturating_add(run.stretched(id, left.saturating_mul(pace) / 1_000, ranks))
    }

    /// Takes seats for a whole gang and starts it, or changes nothing.
    fn seat(&mut self, round: &mut Round, name: &RunName, id: WorkId) -> bool {
        let Some(run) = self.state.runs.get(name) else { return false };
        if self.state.index.pools.free() < run.least(id) {
            return false;
        }
        let mut found = None;
        for (at, ranks) in self.widths(name, id).into_iter().enumerate() {
            found = self.seats_for_all(round, name, id, ranks, at == 0);
            if found.is_some() {
                break;
            }
        }
        let Some(seats) = found else {
            let is_its_turn = self.state.runs.get(name).is_some_and(|run| {
                let requires = run.requires(id);
                round.kept.keys().all(|kind| !requires.accepts_kind(kind))
            });
            self.goes_on_waiting(name, id, is_its_turn);
            return false;
        };
        self.waits_no_longer(name, id);
        let gang = Gang { seats: seats.clone(), ..Gang::default() };
        self.change(name, id, |work| work.phase = Phase::Running(gang));
        for (rank, seat) in (0..).zip(seats) {
            if let Some(start) = self.start(name, id, rank, seat) {
                self.act(Action::StartRank(start));
            }
        }
        true
    }

    /// Seats for a gang of `ranks`: none that are kept for others, except those it may fill.
    fn seats_for_all(
        &mut self,
        round: &mut Round,
        name: &RunName,
        id: WorkId,
        ranks: u32,
        is_first: bool,
    ) -> Option<Vec<Seat>> {
        if self.state.index.pools.free() < ranks {
            return None;
        }
        let found = self.find_seats(name, id, ranks, &|kind| !round.kept.contains_key(kind));
        found.or_else(|| {
            let kinds: Vec<String> = round.kept.keys().cloned().collect();
            round.looked += u32::from(is_first && !kinds.is_empty());
            kinds.into_iter().find_map(|kind| {
                let seats = self.find_seats(name, id, ranks, &|it| it == kind)?;
                let kept = round.kept.get_mut(&kind)?;
                self.may_fill(kept, &kind, name, id, ranks).then_some(seats)
            })
        })
    }

    /// Seats for a whole gang on devices of one kind that `may_use` allows.
    fn find_seats(
        &self,
        name: &RunName,
        id: WorkId,
        ranks: u32,
        may_use: &dyn Fn(&str) -> bool,
    ) -> Option<Vec<Seat>> {
        let run = self.state.runs.get(name)?;
        let work = run.works.get(&id)?;
        let requires = run.requires(id);
        let pools = &self.state.index.pools;
        let nodes = &self.state.nodes;
        let is_slow =
            |node: &NodeName| nodes.get(node).is_some_and(|node| node.slower_percent.is_some());
        let is_avoided = |node: &NodeName| work.avoid.as_ref() == Some(node) || is_slow(node);
        let will_do = |worker: &WorkerId| {
            self.state.workers.get(worker).is_some_and(|it| requires.accepts(&it.offer))
        };
        let strict = |worker: &WorkerId, node: &NodeName| will_do(worker) && !is_avoided(node);
        let lenient = |worker: &WorkerId, _: &NodeName| will_do(worker);
        let accepts_kind = |kind: &str| requires.accepts_kind(kind) && may_use(kind);
        let wish = Wish { ranks, accepts_kind: &accepts_kind, accepts: &strict, home: &work.home };
        pools.find(&wish).or_else(|| pools.find(&Wish { accepts: &lenient, ..wish }))
    }

    /// Asks gangs of lower priorities to save and leave, if that makes room for `id` on one kind of
    /// device; on the kind where it costs the fewest seats.
    fn preempt_for(&mut self, name: &RunName, id: WorkId) {
        let Some(run) = self.state.runs.get(name) else { return };
        let asked = self.victims(run, id, self.width(run, id));
        for victim in asked.into_iter().flatten() {
            if !self.has_room() {
                self.effects.more = true;
                return;
            }
            let cause = Stop::Preempted { by: name.clone(), work: id };
            self.stop_gang(&victim.run, victim.work, cause);
        }
    }

    /// Gangs of lower priorities that would have to leave so that `id` has so many seats of one kind: nobody, if
    /// enough are free or leaving anyway. None if not all of them together would be enough.
    pub(super) fn victims(&self, run: &super::Run, id: WorkId, ranks: u32) -> Option<Vec<Victim>> {
        let priority = run.head.spec.spec.priority;
        let requires = run.requires(id);
        let is_lower = |run: &super::Run| run.head.spec.spec.priority < priority;
        if !self.state.runs.values().any(is_lower) {
            return None;
        }
        let will_do = |seat: &Seat| {
            let worker = self.state.workers.get(&seat.worker)?;
            let is_good = worker.lost_at.is_none()
                && !worker.withdrawn.contains_key(&seat.slot)
                && requires.accepts(&worker.offer)
                && self.state.nodes.get(&worker.offer.node).is_none_or(super::Node::is_open);
            is_good.then_some(&worker.offer.kind)
        };
        // By kind: seats that are coming anyway, and who could be asked to leave.
        let mut kinds: BTreeMap<&String, (u32, Vec<Victim>)> = BTreeMap::new();
        for (other, found) in &self.state.runs {
            let Some(facts) = self.state.index.run(other) else { continue };
            for &it in facts.running.iter().chain(&facts.stopping) {
                let Some(work) = found.works.get(&it) else { continue };
                let Some(gang) = work.gang() else { continue };
                let mut good = gang.alive().filter_map(|(_, seat)| will_do(seat));
                let Some(kind) = good.next() else { continue };
                let seats = u32::try_from(good.count() + 1).unwrap_or(u32::MAX);
                let (coming, victims) = kinds.entry(kind).or_default();
                if matches!(work.phase, Phase::Stopping { .. }) {
                    *coming += seats;
                } else if is_lower(found) && it.model().is_some() {
                    let priority = found.head.spec.spec.priority;
                    victims.push(Victim { priority, seats, run: other.clone(), work: it });
                }
            }
        }
        let mut best: Option<(u32, Vec<Victim>)> = None;
        for (kind, (coming, mut victims)) in kinds {
            let mut seats = coming + self.state.index.pools.free_of(&|it| it == kind);
            if seats >= ranks {
                // It has them as soon as others have left.
                return Some(Vec::new());
            }
            // The least urgent first, and of those the widest.
            victims.sort_by(|a, b| {
                (a.priority, b.seats, &a.run, a.work).cmp(&(b.priority, a.seats, &b.run, b.work))
            });
            let missing = ranks - seats;
            let mut asked = Vec::new();
            for victim in victims {
                if seats < ranks {
                    seats += victim.seats;
                    asked.push(victim);
                }
            }
            if seats >= ranks && best.as_ref().is_none_or(|(least, _)| missing < *least) {
                best = Some((missing, asked));
            }
        }
        best.map(|(_, asked)| asked)
    }
}

/// A gang that could be asked to leave for a more urgent one.
pub(super) struct Victim {
    priority: i32,
    seats: u32,
    run: RunName,
    work: WorkId,
}
