use clade_core::ids::{CheckpointRef, Incarnation, Step};
use clade_core::job::Outcome;
use clade_core::schedule::{Event, Limits, step};
use clade_core::spec::RunSpec;

use super::*;

const NOW: Millis = Millis(1_000);

fn take(state: &mut State, event: Event) {
    let refusal = step(state, Limits::default(), NOW, event).refusal;
    assert_eq!(refusal, None);
}

fn apply(state: &mut State, name: &str) {
    let demo = include_str!("../../../deploy/demo/run.yaml");
    let demo = demo.replace("name: clipart", &format!("name: {name}"));
    let spec = Box::new(RunSpec::parse(&demo).unwrap());
    take(state, Event::Applied { spec, tars: 1 });
}

fn attach(state: &mut State, node: &str) {
    let offer = Offer {
        node: NodeName(node.to_owned()),
        host: node.to_owned(),
        slots: 8,
        kind: "cpu".to_owned(),
        secret: "5e".to_owned(),
        ..Offer::default()
    };
    let (worker, withdrawn) = (WorkerId(format!("{node}-1")), BTreeMap::new());
    take(state, Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
}

/// A state whose seed model trains.
fn training() -> State {
    let mut state = State::default();
    attach(&mut state, "n1");
    apply(&mut state, "a");
    let seed = WorkId::Model(ModelId::Seed);
    let run: RunName = "a".parse().unwrap();
    for _ in 0..100 {
        if state.work(&run, seed).unwrap().gang().is_some() {
            return state;
        }
        let works = &state.runs[&run].works;
        let (id, work) = works.iter().find(|(_, work)| work.gang().is_some()).unwrap();
        let fence = Fence { run: run.clone(), work: *id, incarnation: work.incarnation };
        let worker = work.gang().unwrap().seats[0].worker.clone();
        let counts = BTreeMap::from([("pairs".to_owned(), 4_096)]);
        let outcome = Outcome::Done { counts };
        take(&mut state, Event::RankExited { worker, fence, rank: 0, outcome });
    }
    panic!("the seed was never seated");
}

fn ask(state: &State, observed: &Observed) -> v1::GetStatusResponse {
    status(state, observed, NOW, None, &Page { size: 0, after: None }).status
}

fn seed(status: &v1::GetStatusResponse) -> &v1::PartStatus {
    status.runs[0].parts.iter().find(|part| part.name == "seed").unwrap()
}

#[test]
fn a_running_model_of_which_a_standby_hears_nothing_is_not_said_to_be_starting() {
    let state = training();
    let told = ask(&state, &Observed::default());
    assert_eq!((seed(&told).phase.as_str(), told.is_mirror), ("starting", false));
    let told = ask(&state, &Observed::nothing());
    assert_eq!((seed(&told).phase.as_str(), told.is_mirror), ("running", true));
}

#[test]
fn an_inspection_that_fails_says_why() {
    let mut state = training();
    let run: RunName = "a".parse().unwrap();
    let work = WorkId::Model(ModelId::Seed);
    let fence = state.runs[&run].fence(work).unwrap();
    let worker = WorkerId("n1-1".to_owned());
    // Something that it left is to be found.
    let (model, manifest) = (ModelId::Seed, "0".repeat(64).parse().unwrap());
    let checkpoint = CheckpointRef { model, incarnation: Incarnation(1), step: Step(3), manifest };
    let (said, by) = (fence.clone(), worker.clone());
    take(&mut state, Event::CheckpointReported { worker: by, fence: said, checkpoint });
    take(&mut state, Event::CancelRequested { run: run.clone() });
    let ranks = state.work(&run, work).unwrap().gang().unwrap().seats.len();
    for rank in 0..u32::try_from(ranks).unwrap() {
        let (worker, fence) = (worker.clone(), fence.clone());
        take(&mut state, Event::RankExited { worker, fence, rank, outcome: Outcome::Stopped });
    }
    let mut observed = Observed::default();
    let looks = "looks for what the last gang left";
    assert_eq!(seed(&ask(&state, &observed)).reason, looks);
    observed.trouble(fence, "storage failed: access denied".to_owned());
    observed.prune(&state);
    let reason = format!("{looks}; tries again after: storage failed: access denied");
    assert_eq!(seed(&ask(&state, &observed)).reason, reason);
}

#[test]
fn runs_come_in_pages_and_closed_nodes_are_named_once() {
    let mut state = State::default();
    attach(&mut state, "n1");
    attach(&mut state, "n2");
    let reason = "fan is loud".to_owned();
    let node = NodeName("n2".to_owned());
    take(&mut state, Event::NodeCordoned { node, reason, drain: true });
    for name in ["a", "b", "c"] {
        apply(&mut state, name);
    }
    let mut page = Page { size: 2, after: None };
    let first = status(&state, &Observed::default(), NOW, None, &page).status;
    let names = |status: &v1::GetStatusResponse| {
        status.runs.iter().map(|run| run.run.clone()).collect::<Vec<_>>()
    };
    assert_eq!((names(&first), &*first.next_page_token), (vec!["a".into(), "b".into()], "b"));
    assert_eq!((first.workers.len(), first.closed_node_count), (2, 1));
    let closed = &first.closed_nodes[0];
    assert_eq!((&*closed.node, &*closed.state, &*closed.why), ("n2", "draining", "fan is loud"));
    page.after = Some("b".parse().unwrap());
    let second = status(&state, &Observed::default(), NOW, None, &page).status;
    assert_eq!((names(&second), &*second.next_page_token), (vec!["c".into()], ""));
    assert!(second.workers.is_empty() && second.closed_nodes.is_empty());
    let one = "c".parse().unwrap();
    let page = Page { size: 0, after: None };
    let only = status(&state, &Observed::default(), NOW, Some(&one), &page).status;
    assert_eq!(names(&only), ["c"]);
}
