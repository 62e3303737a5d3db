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

use std::collections::BTreeMap;

use super::index::ReadyModel;
use super::placement::DEPTH;
use super::step::Stepper;
use super::{Node, Phase, Stop};
use crate::ids::{ModelId, RunName, Seat, WorkId};

/// Between two looks, in milliseconds: leaving and starting again takes about as long.
const LOOK: u64 = 60_000;

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
    /// Seats that are free, or will be in a moment.
    coming: u32,
    running: Vec<Gone>,
}

/// A gang that could make way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Gone {
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
        let is_early = self.now.0 < self.state.weighed.0.saturating_add(LOOK);
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
        let (ranks, requires) = (run.ranks(model.work), run.requires(model.work).clone());
        let Some(left) = self.time_left(&model.run, model.work).filter(|_| work.fruitless == 0)
        else {
            return true;
        };
        for (kind, weighed) in kinds.iter_mut().filter(|(kind, _)| requires.accepts_kind(kind)) {
            if u64::from(ranks) > weighed.capacity {
                continue;
            }
            if weighed.coming >= ranks {
                weighed.coming -= ranks;
                return true;
            }
            if left.saturating_add(LOOK) < weighed.horizon() {
                continue;
            }
            let margin = self.limits.way.0.max(left / PART);
            let mut coming = weighed.coming;
            let mut asked: Vec<Gone> = Vec::new();
            for gone in &weighed.running {
                if coming < ranks && gone.left.saturating_add(margin) <= left {
                    coming += self.seats_for(gone, &model.run, model.work, kind);
                    asked.push(gone.clone());
                }
            }
            if coming < ranks {
                continue;
            }
            weighed.coming = coming - ranks;
            weighed.running.retain(|it| !asked.contains(it));
            for gone in asked {
                if !self.has_room() {
                    self.effects.more = true;
                    return false;
                }
                let cause = Stop::Preempted { by: model.run.clone(), work: model.work };
                self.stop_gang(&gone.run, gone.work, cause);
            }
            return true;
        }
        true
    }

    /// What is left to the models of a priority that wait or run, by kind of device.
    fn weigh(&self, priority: i32, waiting: &[ReadyModel]) -> Option<BTreeMap<String, Weighed>> {
        let (state, index) = (&self.state, &self.state.index);
        let mut kinds: BTreeMap<String, Weighed> = BTreeMap::new();
        for (kind, capacity) in self.open_seats(&crate::spec::Requires::default()) {
            let coming = index.pools.free_of(&|it| it == kind);
            let capacity = u64::from(capacity);
            kinds.insert(kind, Weighed { capacity, coming, ..Weighed::default() });
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
                let is_new = state.seen.get(&(name.clone(), id)).is_none_or(|it| it.reached() == 0);
                if matches!(work.phase, Phase::Stopping { .. }) || left < self.limits.way.0 {
                    weighed.coming += seats;
                } else if !is_new {
                    weighed.running.push(Gone { left, run: name.clone(), work: id });
                }
            }
        }
        for weighed in kinds.values_mut() {
            weighed.running.sort();
        }
        Some(kinds)
    }

    /// Seats of a gang that would do for another work.
    fn seats_for(&self, gone: &Gone, name: &RunName, id: WorkId, kind: &str) -> u32 {
        let Some(run) = self.state.runs.get(name) else { return 0 };
        let requires = run.requires(id);
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
    fn time_left(&self, name: &RunName, id: WorkId) -> Option<u64> {
        let run = self.state.runs.get(name)?;
        let pace = self.state.index.run(name)?.pace.unwrap_or(super::index::PACE);
        let work = run.works.get(&id)?;
        let model = id.model()?;
        let seen = self.state.seen.get(&(name.clone(), id));
        // Every model but the seed goes on from where that ends.
        let first = if model == ModelId::Seed { 0 } else { run.due(ModelId::Seed).0 };
        let reached = seen.map_or(first, super::progress::Seen::reached);
        let reached = reached.max(first).max(work.committed_step().0);
        let steps = run.due(model).0.saturating_sub(reached);
        Some(steps.saturating_mul(pace) / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::ids::{
        CheckpointRef, Digest, Fence, Incarnation, Millis, NodeName, Stage, Step, WorkerId,
    };
    use crate::schedule::index::Index;
    use crate::schedule::invariants::{About, violations};
    use crate::schedule::{Action, Event, Limits, Offer, State, step};
    use crate::spec::RunSpec;

    const DEMO: &str = include_str!("../../../deploy/demo/run.yaml");

    /// Three experts of four hours, of which two are seated.
    fn three_on_two() -> State {
        let document = DEMO
            .replace("experts: 4", "experts: 3")
            .replace("expertSteps: 144", "expertSteps: 14400")
            .replace("baselines: [dense]", "baselines: []");
        let spec = Box::new(RunSpec::parse(&document).unwrap());
        let mut state = State::default();
        tell(&mut state, 1_000, Event::Applied { spec, tars: 1 });
        let run = state.runs.values_mut().next().unwrap();
        for (id, work) in &mut run.works {
            let is_done = match id {
                WorkId::Job(job) => job.stage < Stage::Evaluate || job.part == 0,
                WorkId::Model(model) => *model == ModelId::Seed,
            };
            if is_done && !matches!(id, WorkId::Job(job) if job.stage > Stage::Evaluate) {
                work.phase = Phase::Done;
            }
        }
        let (model, manifest) = (ModelId::Seed, Digest([0; 32]));
        let seed = CheckpointRef { model, incarnation: Incarnation(1), step: Step(288), manifest };
        run.works.get_mut(&WorkId::Model(model)).unwrap().committed = vec![seed];
        state.index = Index::of(&state);
        for name in ["w1", "w2"] {
            let node = NodeName(name.into());
            let offer = Offer { node, slots: 1, kind: "cpu".into(), ..Offer::default() };
            let (worker, withdrawn, ranks) = (WorkerId(name.into()), BTreeMap::new(), vec![]);
            tell(&mut state, 1_000, Event::WorkerAttached { worker, offer, withdrawn, ranks });
        }
        state
    }

    fn tell(state: &mut State, now: u64, event: Event) -> Vec<Action> {
        let about = About::of(&event);
        let effects = step(state, Limits::default(), Millis(now), event);
        assert_eq!(violations(&about, &effects, state), vec![]);
        effects.actions
    }

    /// Both gangs take a step a second, until somebody is told to stop; returns the second and whom.
    fn first_stop(state: &mut State, seconds: Range<u64>) -> Option<(u64, Fence, bool)> {
        for second in seconds {
            let mut told = tell(state, second * 1_000, Event::Tick);
            let seats: Vec<_> =
                state.taken().map(|(seat, run, work)| (seat, run.clone(), work)).collect();
            for (Seat { worker, .. }, run, work) in seats.into_iter().filter(|_| second % 30 == 0) {
                let fence = state.runs[&run].fence(work).unwrap();
                let (rank, done, busy_us) = (0, 288 + second, 0);
                let event = Event::Progressed { worker, fence, rank, done, busy_us };
                told.extend(tell(state, second * 1_000, event));
            }
            let stop = told.into_iter().find_map(|action| match action {
                Action::StopRank { fence, save, .. } => Some((second, fence, save)),
                Action::StartRank(_)
                | Action::ShareRendezvous { .. }
                | Action::Inspect { .. }
                | Action::Collect { .. }
                | Action::Refuse { .. }
                | Action::Supersede { .. } => None,
            });
            if stop.is_some() {
                return stop;
            }
        }
        None
    }

    #[test]
    fn of_three_equal_experts_on_two_seats_one_saves_and_leaves_when_the_third_can_wait_no_longer()
    {
        let mut state = three_on_two();
        // Twelve hours of work on two seats: six hours, of which the third needs the last four.
        let (second, fence, save) = first_stop(&mut state, 2..14_000).expect("one leaves");
        assert!((7_080..7_260).contains(&second), "{second}");
        assert!(save, "{fence} loses what it has done");
        assert_ne!(fence.work, WorkId::Model(ModelId::Expert(2)));
        // The other goes on: one seat is what the third needs.
        assert_eq!(first_stop(&mut state, second + 1..second + 300), None);
    }

    #[test]
    fn nobody_makes_way_for_a_model_that_has_failed_since_its_last_checkpoint() {
        let mut state = three_on_two();
        let run = state.runs.values_mut().next().unwrap();
        let third = run.works.get_mut(&WorkId::Model(ModelId::Expert(2))).unwrap();
        third.fruitless = 1;
        assert_eq!(first_stop(&mut state, 2..14_000), None);
    }
}
