//! Who makes way, when, and who never does.

use std::ops::Range;

use super::*;
use crate::ids::{
    CheckpointRef, Digest, Fence, Incarnation, Millis, ModelId, NodeName, Stage, Step,
};
use crate::schedule::index::Index;
use crate::schedule::invariants::{About, violations};
use crate::schedule::{Action, Event, Limits, Offer, State, step};
use crate::spec::RunSpec;

const DEMO: &str = include_str!("../../../../deploy/demo/run.yaml");

/// Three experts of four hours, of which two are seated.
fn three_on_two() -> State {
    three_of(1)
}

/// The same of so many ranks each, on as many seats.
fn three_of(ranks: u32) -> State {
    let document = DEMO
        .replace("expert: {ranks: 1", &format!("expert: {{ranks: {ranks}"))
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
        let offer = Offer { node, slots: ranks, kind: "cpu".into(), ..Offer::default() };
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

/// Gangs take a step a second, until somebody is told to stop; returns the second and whom.
fn first_stop(state: &mut State, seconds: Range<u64>, saves: bool) -> Option<(u64, Fence, bool)> {
    for second in seconds {
        let mut told = tell(state, second * 1_000, Event::Tick);
        let seats: Vec<_> =
            state.taken().map(|(seat, run, work)| (seat, run.clone(), work)).collect();
        for (Seat { worker, .. }, run, work) in seats.into_iter().filter(|_| second % 30 == 0) {
            let fence = state.runs[&run].fence(work).unwrap();
            let (rank, done, busy_us) = (0, 288 + second, 0);
            let (from, of) = (worker.clone(), fence.clone());
            let event = Event::Progressed { worker: from, fence: of, rank, done, busy_us };
            told.extend(tell(state, second * 1_000, event));
            if let (true, Some(model)) = (saves, work.model()) {
                let (incarnation, manifest) = (fence.incarnation, Digest([1; 32]));
                let checkpoint = CheckpointRef { model, incarnation, step: Step(done), manifest };
                let event = Event::CheckpointReported { worker, fence, checkpoint };
                told.extend(tell(state, second * 1_000, event));
            }
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
fn of_three_equal_experts_on_two_seats_one_saves_and_leaves_when_the_third_can_wait_no_longer() {
    for ranks in [1, 2] {
        let mut state = three_of(ranks);
        // Twelve hours of work on two seats: six hours, of which the third needs the last four.
        let (second, fence, save) = first_stop(&mut state, 2..14_000, true).expect("one leaves");
        assert!((7_080..7_260).contains(&second), "{second}");
        assert!(save, "{fence} loses what it has done");
        assert_ne!(fence.work, WorkId::Model(ModelId::Expert(2)));
        // The other goes on: its seats are all that the third needs.
        assert_eq!(first_stop(&mut state, second + 1..second + 300, true), None);
    }
}

#[test]
fn nobody_makes_way_for_a_model_that_has_failed_since_its_last_checkpoint() {
    let mut state = three_on_two();
    let run = state.runs.values_mut().next().unwrap();
    let third = run.works.get_mut(&WorkId::Model(ModelId::Expert(2))).unwrap();
    third.fruitless = 1;
    assert_eq!(first_stop(&mut state, 2..14_000, true), None);
}

#[test]
fn who_has_saved_nothing_makes_way_for_nobody_or_two_could_take_turns_without_end() {
    assert_eq!(first_stop(&mut three_on_two(), 2..14_000, false), None);
}
