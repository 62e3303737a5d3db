//! Any events in any order, sensible or not: no invariant breaks. The simulation in `clade-tests`
//! plays sensible worlds; this plays impossible ones.

use proptest::prelude::*;

use super::violations;
use crate::ids::{
    CheckpointRef, Digest, Fence, Incarnation, Millis, ModelId, Stage, Step, Term, WorkId, WorkerId,
};
use crate::job::{Failure, Outcome};
use crate::schedule::{Event, Limits, LiveRank, Object, State, step};
use crate::spec::RunSpec;

fn any_work() -> impl Strategy<Value = WorkId> {
    prop_oneof![
        Just(WorkId::job(Stage::Index, 0)),
        Just(WorkId::job(Stage::Catalog, 0)),
        Just(WorkId::job(Stage::Embed, 0)),
        Just(WorkId::Model(ModelId::Seed)),
        Just(WorkId::Model(ModelId::Expert(0))),
    ]
}

fn any_fence() -> impl Strategy<Value = Fence> {
    (any_work(), 1_u64..4).prop_map(|(work, incarnation)| Fence {
        run: "clipart".parse().expect("a run's name"),
        work,
        incarnation: Incarnation(incarnation),
    })
}

fn any_worker() -> impl Strategy<Value = WorkerId> {
    (0_u32..3).prop_map(|index| WorkerId(format!("w{index}")))
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let failed = |failure| Just(Outcome::Failed(failure));
    prop_oneof![
        4 => Just(Outcome::Done { counts: [("pairs".to_owned(), 9)].into() }),
        1 => Just(Outcome::Stopped),
        1 => failed(Failure::Crashed { rank: 0, message: "signal 9".to_owned() }),
        1 => failed(Failure::PeerLost { rank: 1 }),
        1 => failed(Failure::Data { message: "bad".to_owned() }),
    ]
}

fn checkpoint(fence: &Fence, step: u64) -> Option<CheckpointRef> {
    let (incarnation, manifest) = (fence.incarnation, Digest([0; 32]));
    Some(CheckpointRef { model: fence.work.model()?, incarnation, step: Step(step), manifest })
}

fn any_event() -> impl Strategy<Value = Event> {
    let run = || "clipart".parse().expect("a run's name");
    let spec = RunSpec::parse(include_str!("../../../../deploy/demo/run.yaml"));
    let spec = Box::new(spec.expect("the demo's document is valid"));
    let attached = (any_worker(), 0_u32..3, prop::collection::vec((any_fence(), 0_u32..2), 0..2));
    let steps = prop_oneof![Just(288_u64), 0_u64..500];
    prop_oneof![
        1 => (2_u64..9).prop_map(|term| Event::TookLead { term: Term(term) }),
        2 => Just(Event::Applied { spec, tars: 1 }),
        1 => Just(Event::CancelRequested { run: run() }),
        6 => attached.prop_map(|(worker, slots, ranks)| Event::WorkerAttached {
            worker,
            host: String::new(),
            pid: 1,
            slots,
            ranks: ranks
                .into_iter()
                .map(|(fence, rank)| LiveRank { fence, rank, slot: rank })
                .collect(),
        }),
        1 => any_worker().prop_map(|worker| Event::WorkerDetached { worker }),
        1 => any_worker().prop_map(|worker| Event::WorkerLeft { worker }),
        1 => any_fence().prop_map(|fence| Event::RendezvousPosted { fence, address: "a:1".into() }),
        12 => (any_fence(), 0_u32..2, any_outcome())
            .prop_map(|(fence, rank, outcome)| Event::RankExited { fence, rank, outcome }),
        4 => (any_worker(), any_fence(), steps.clone()).prop_map(|(worker, fence, step)| {
            match checkpoint(&fence, step) {
                Some(checkpoint) => Event::CheckpointReported { worker, fence, checkpoint },
                None => Event::Tick,
            }
        }),
        4 => (any_fence(), prop::option::of(steps)).prop_map(|(fence, step)| {
            let newest = step.and_then(|step| checkpoint(&fence, step));
            Event::Inspected { fence, newest }
        }),
        3 => Just(Event::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_invariant_holds_after_every_event_and_all_that_changed_is_saved(
        events in prop::collection::vec((0_u64..2_000, any_event()), 0..120),
    ) {
        let mut state = State::default();
        let mut now = 0;
        for (wait, event) in events {
            now += wait;
            let before = state.clone();
            let effects = step(&mut state, Limits::default(), Millis(now), event);
            prop_assert_eq!(violations(&before, &state), vec![]);
            for (name, run) in &state.runs {
                let then = before.runs.get(name);
                let is_saved = |object: Object| effects.changed.contains(&object);
                if then.map(|run| &run.head) != Some(&run.head) {
                    prop_assert!(is_saved(Object::Run(name.clone())));
                }
                for (id, work) in &run.works {
                    if then.and_then(|run| run.works.get(id)) != Some(work) {
                        prop_assert!(is_saved(Object::Work(name.clone(), *id)), "{} is not saved", id);
                    }
                }
            }
            for (id, worker) in &state.workers {
                if before.workers.get(id) != Some(worker) {
                    prop_assert!(effects.changed.contains(&Object::Worker(id.clone())));
                }
            }
        }
    }
}
