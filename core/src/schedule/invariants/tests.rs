//! Any events in any order, sensible or not: no invariant breaks. The simulation in `clade-tests`
//! plays sensible worlds; this plays impossible ones.

use proptest::prelude::*;

use super::{About, violations, whole};
use crate::ids::{
    CheckpointRef, Digest, Fence, Incarnation, Millis, ModelId, NodeName, RunName, Stage, Step,
    Term, WorkId, WorkerId,
};
use crate::job::{Failure, Outcome};
use crate::schedule::{Event, Limits, LiveRank, Object, Offer, RunHead, State, Work, step, undo};
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

fn run_named(name: &str, priority: i32) -> Box<RunSpec> {
    let demo = include_str!("../../../../deploy/demo/run.yaml");
    let document = demo
        .replace("name: clipart", &format!("name: {name}"))
        .replace("  gangs:", &format!("  priority: {priority}\n  gangs:"))
        // One of them may have fewer ranks than its most.
        .replace(
            "expert: {ranks: 1",
            if priority > 0 { "expert: {ranks: 2, minRanks: 1" } else { "expert: {ranks: 1" },
        );
    Box::new(RunSpec::parse(&document).expect("the demo's document is valid"))
}

fn any_node() -> impl Strategy<Value = NodeName> {
    (0_u32..2).prop_map(|index| NodeName(format!("n{index}")))
}

fn offer(worker: &WorkerId, slots: u32) -> Offer {
    let node = NodeName(worker.0.replace(['w', '2'], "n").replace("nn", "n1"));
    Offer { node, slots, kind: "cpu".into(), domain: "d".into(), ..Offer::default() }
}

fn any_event() -> impl Strategy<Value = Event> {
    let run = prop_oneof![Just("clipart"), Just("urgent")];
    let run = run.prop_map(|name| -> RunName { name.parse().expect("a run's name") });
    let spec = prop_oneof![Just(run_named("clipart", 0)), Just(run_named("urgent", 5))];
    let attached = (
        any_worker(),
        0_u32..4,
        prop::collection::vec((any_fence(), 0_u32..2), 0..2),
        prop::collection::btree_map(0_u32..3, Just("ECC".to_owned()), 0..2),
    );
    let steps = prop_oneof![Just(288_u64), 0_u64..500];
    let about = || (any_worker(), any_fence());
    prop_oneof![
        1 => (2_u64..9).prop_map(|term| Event::TookLead { term: Term(term) }),
        2 => spec.prop_map(|spec| Event::Applied { spec, tars: 1 }),
        1 => run.prop_map(|run| Event::CancelRequested { run }),
        1 => (any_node(), any::<bool>()).prop_map(|(node, drain)| {
            Event::NodeCordoned { node, reason: "fan".into(), drain }
        }),
        1 => any_node().prop_map(|node| Event::NodeUncordoned { node }),
        6 => attached.prop_map(|(worker, slots, ranks, withdrawn)| Event::WorkerAttached {
            offer: offer(&worker, slots.min(2)),
            worker,
            withdrawn: if slots == 3 { withdrawn } else { [].into() },
            ranks: ranks
                .into_iter()
                .map(|(fence, rank)| LiveRank { fence, rank, slot: rank })
                .collect(),
        }),
        1 => any_worker().prop_map(|worker| Event::WorkerDetached { worker }),
        1 => any_worker().prop_map(|worker| Event::WorkerLeft { worker }),
        1 => (any_worker(), 0_u32..3).prop_map(|(worker, slot)| {
            Event::DeviceWithdrawn { worker, slot, reason: "XID 79".into() }
        }),
        1 => about().prop_map(|(worker, fence)| {
            Event::RendezvousPosted { worker, fence, address: "a:1".into() }
        }),
        12 => (about(), 0_u32..2, any_outcome()).prop_map(|((worker, fence), rank, outcome)| {
            Event::RankExited { worker, fence, rank, outcome }
        }),
        4 => (about(), steps.clone()).prop_map(|((worker, fence), step)| {
            match checkpoint(&fence, step) {
                Some(checkpoint) => Event::CheckpointReported { worker, fence, checkpoint },
                None => Event::Tick,
            }
        }),
        3 => (about(), steps.clone(), 0_u64..90_000).prop_map(|((worker, fence), done, busy_us)| {
            Event::Progressed { worker, fence, rank: 0, done, busy_us }
        }),
        4 => (any_fence(), prop::option::of(steps)).prop_map(|(fence, step)| {
            let newest = step.and_then(|step| checkpoint(&fence, step));
            Event::Inspected { fence, newest }
        }),
        3 => Just(Event::Tick),
    ]
}

/// A state as a new leader would read it.
fn reloaded(state: &State) -> State {
    let heads: Vec<RunHead> = state.runs.values().map(|run| run.head.clone()).collect();
    let works = state.runs.iter().flat_map(|(name, run)| {
        let begun = run.works.iter().filter(|(_, work)| **work != Work::new());
        begun.map(|(id, work)| (name.clone(), *id, work.clone()))
    });
    let (workers, nodes) = (state.workers.clone(), state.nodes.clone());
    State::restore(state.term, heads, works.collect(), workers, nodes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_invariant_holds_after_every_event_and_all_that_changed_is_saved(
        events in prop::collection::vec((0_u64..3_000, any_event()), 0..120),
        // Large changes are done in parts; so are small ones, if a part is smaller still.
        objects in prop_oneof![Just(80_usize), 1_usize..4],
    ) {
        let (first_step, hang) = (Millis(9_000), Millis(7_000));
        let limits = Limits { first_step, hang, objects, ..Limits::default() };
        let mut state = State::default();
        let mut now = 0;
        for (wait, event) in events {
            now += wait;
            let before = state.clone();
            let about = About::of(&event);
            let effects = step(&mut state, limits, Millis(now), event);
            prop_assert_eq!(violations(&about, &effects, &state), vec![]);
            prop_assert_eq!(whole(&state, Millis(now)), Vec::<String>::new());
            let is_saved = |object: Object| effects.changed.contains(&object);
            for (name, run) in &state.runs {
                let then = before.runs.get(name);
                if then.map(|run| &run.head) != Some(&run.head) {
                    prop_assert!(is_saved(Object::Run(name.clone())));
                }
                for (id, work) in &run.works {
                    let was = then.map_or(&Work::new(), |run| &run.works[id]).clone();
                    if was != *work {
                        prop_assert!(is_saved(Object::of(name, *id)), "{} is not saved", id);
                        prop_assert!(then.is_none()
                            || effects.before.works.get(&(name.clone(), *id)) == Some(&was));
                    }
                }
            }
            for id in before.workers.keys().chain(state.workers.keys()) {
                let stored = |state: &State| {
                    let worker = state.workers.get(id);
                    worker.map(|worker| (worker.offer.clone(), worker.withdrawn.clone()))
                };
                if stored(&before) != stored(&state) {
                    prop_assert!(is_saved(Object::Worker(id.clone())));
                }
            }
            for name in before.nodes.keys().chain(state.nodes.keys()) {
                if before.nodes.get(name) != state.nodes.get(name) {
                    prop_assert!(is_saved(Object::Node(name.clone())));
                }
            }
        }
        let read = reloaded(&state);
        prop_assert_eq!(&read.runs, &state.runs);
        prop_assert_eq!(&read.nodes, &state.nodes);
    }

    #[test]
    fn an_event_that_is_taken_back_leaves_everything_as_it_was(
        events in prop::collection::vec((0_u64..3_000, any_event()), 0..80),
    ) {
        let limits = Limits { first_step: Millis(9_000), hang: Millis(7_000), ..Limits::default() };
        let mut state = State::default();
        let mut now = 0;
        for (wait, event) in events {
            now += wait;
            let before = state.clone();
            let effects = step(&mut state, limits, Millis(now), event.clone());
            undo(&mut state, &limits, effects);
            prop_assert_eq!(&state.term, &before.term);
            prop_assert_eq!(&state.runs, &before.runs);
            prop_assert_eq!(&state.workers, &before.workers, "{:?}", event);
            prop_assert_eq!(&state.nodes, &before.nodes);
            prop_assert_eq!(state.failures.counts(), before.failures.counts());
            prop_assert_eq!(&state.leaving, &before.leaving);
            prop_assert_eq!(whole(&state, Millis(now)), Vec::<String>::new());
            state = before;
            step(&mut state, limits, Millis(now), event);
        }
    }
}
