//! How works end, and what that says of their nodes, their runs and the works beside them.

use super::*;

/// `expert-0` at `w1` and `w2`, `expert-1` at `w3` and `w4`.
pub(super) fn seated() -> Script {
    let mut script = Script::trained_seed();
    for worker in ["w1", "w2", "w3", "w4"] {
        script.join(worker);
    }
    script
}

impl Script {
    fn run_phase(&self) -> &RunPhase {
        &self.state.runs.values().next().unwrap().head.phase
    }

    fn avoided(&self, work: &str) -> Option<&str> {
        self.work(work).avoid.as_ref().map(|node| node.0.as_str())
    }
}

#[test]
fn a_job_that_crashes_once_rests_is_tried_again_and_its_run_goes_on() {
    let mut script = Script::new();
    script.event(Event::Applied { spec: Box::new(spec()), tars: 1 });
    script.join("w1");
    script.exit("index.0#1", 0, crashed(0));
    assert_eq!(*script.run_phase(), RunPhase::Active);
    let job = script.work("index.0");
    assert!(matches!(job.phase, Phase::Backoff { .. }), "{:?}", job.phase);
    assert_eq!((job.restarts, job.strikes), (1, 1));
    script.at(2_000);
    assert!(matches!(script.work("index.0").phase, Phase::Running(_)));
}

#[test]
fn a_model_given_up_stops_no_other_and_leaves_its_run_active() {
    let mut script = seated();
    let failure = Failure::Config { message: "no such optimizer".into() };
    script.exit("expert-0#1", 0, Outcome::Failed(failure));
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", None);
    assert!(matches!(script.work("expert-0").phase, Phase::Failed { .. }));
    assert!(matches!(script.work("expert-1").phase, Phase::Running(_)));
    assert_eq!(*script.run_phase(), RunPhase::Active);
    assert_eq!(script.why("evaluate.1"), "cannot start: expert-0 has failed");
    assert_eq!(script.why("evaluate.2"), "waits for expert-1");
}

#[test]
fn a_model_given_up_ends_no_run_in_which_another_can_go_on() {
    // `expert-1` waits, and goes on waiting: the only node is closed.
    let mut script = Script::trained_seed();
    script.attach("w1", 2, vec![]);
    script.cordon("n1", false);
    let failure = Failure::Config { message: "no such optimizer".into() };
    script.exit("expert-0#1", 0, Outcome::Failed(failure));
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", None);
    assert_eq!(script.work("expert-1").phase, Phase::Waiting);
    assert_eq!(*script.run_phase(), RunPhase::Active);
    script.event(Event::NodeUncordoned { node: NodeName("n1".into()) });
    assert!(matches!(script.work("expert-1").phase, Phase::Running(_)));
}

#[test]
fn a_model_given_up_ends_no_run_in_which_another_rests() {
    let mut script = seated();
    script.exit("expert-1#1", 0, crashed(0));
    script.exit("expert-1#1", 1, crashed(1));
    script.inspected("expert-1#1", None);
    let failure = Failure::Config { message: "no such optimizer".into() };
    script.exit("expert-0#1", 0, Outcome::Failed(failure));
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", None);
    assert!(matches!(script.work("expert-1").phase, Phase::Backoff { .. }));
    assert_eq!(*script.run_phase(), RunPhase::Active);
}

#[test]
fn of_a_run_cancelled_and_applied_by_turns_the_last_word_counts() {
    let mut script = Script::new();
    let apply = || Event::Applied { spec: Box::new(spec()), tars: 1 };
    let cancel = || Event::CancelRequested { run: "clipart".parse().unwrap() };
    script.event(apply());
    script.join("w1");
    script.event(cancel());
    script.event(apply());
    let mut cancelled = script.clone();
    cancelled.event(cancel());
    cancelled.exit("index.0#1", 0, Outcome::Stopped);
    assert_eq!(*cancelled.run_phase(), RunPhase::Cancelled);
    // It fails meanwhile: whoever applied it knows better.
    script.exit("index.0#1", 0, Outcome::Failed(Failure::Data { message: "bad".into() }));
    assert_eq!(*script.run_phase(), RunPhase::Active);
    assert!(matches!(script.work("index.0").phase, Phase::Running(_)));
}

#[test]
fn what_is_said_again_after_a_gang_ended_is_known_and_what_is_new_is_refused() {
    let mut script = seated();
    script.commit("expert-0#1", 300);
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.told.clear();
    script.commit("expert-0#1", 300);
    script.check(&expect![[""]]);
    script.commit("expert-0#1", 310);
    script.check(&expect![[r#"
        refuse w1 clipart/expert-0#1: no gang is seated
    "#]]);
}

#[test]
fn a_model_whose_ranks_end_before_its_last_checkpoint_is_not_done() {
    let mut script = seated();
    script.commit("expert-0#1", 431);
    script.exit("expert-0#1", 0, done());
    script.exit("expert-0#1", 1, done());
    script.inspected("expert-0#1", None);
    let model = script.work("expert-0");
    assert!(matches!(model.phase, Phase::Backoff { .. }), "{:?}", model.phase);
    assert!(matches!(model.last_failure, Some(Failure::Crashed { .. })));
}

#[test]
fn the_next_gang_avoids_the_node_of_the_rank_whose_failure_tells_most() {
    let storage = || Outcome::Failed(Failure::Storage { message: "503".into() });
    let peer = |rank| Outcome::Failed(Failure::PeerLost { rank });
    for (first, second, avoided) in [
        (crashed(0), storage(), Some("n2")),
        (storage(), crashed(1), Some("n1")),
        // The first of equals.
        (crashed(0), crashed(1), Some("n1")),
        // Who lost a peer says nothing of itself.
        (peer(0), crashed(1), Some("n2")),
        (peer(0), peer(1), None),
    ] {
        let mut script = seated();
        let told = format!("{first:?}, {second:?}");
        script.exit("expert-0#1", 0, first);
        script.exit("expert-0#1", 1, second);
        assert_eq!(script.avoided("expert-0"), avoided, "{told}");
    }
}

#[test]
fn an_inspection_that_finds_another_gangs_or_models_checkpoint_records_nothing() {
    let others = [
        checkpoint(ModelId::Expert(0), 2, 310),
        checkpoint(ModelId::Expert(1), 1, 310),
        checkpoint(ModelId::Expert(0), 1, 433),
        // Its own, but no news.
        checkpoint(ModelId::Expert(0), 1, 300),
        checkpoint(ModelId::Expert(0), 1, 299),
    ];
    for newest in others {
        let mut script = seated();
        script.commit("expert-0#1", 300);
        script.exit("expert-0#1", 0, Outcome::Stopped);
        script.exit("expert-0#1", 1, Outcome::Stopped);
        let told = newest.to_string();
        let fence = fence_of("expert-0#1");
        script.event(Event::Inspected { fence, newest: Some(newest) });
        let own = checkpoint(ModelId::Expert(0), 1, 300);
        assert_eq!(script.work("expert-0").committed, vec![own], "{told}");
    }
}

#[test]
fn a_report_of_another_gangs_or_models_checkpoint_is_refused_and_records_nothing() {
    for other in [checkpoint(ModelId::Expert(0), 2, 310), checkpoint(ModelId::Expert(1), 1, 310)] {
        let mut script = seated();
        let (worker, fence) = (WorkerId("w1".into()), fence_of("expert-0#1"));
        script.event(Event::CheckpointReported { worker, fence, checkpoint: other });
        assert!(script.told.contains("refuse w1 clipart/expert-0#1"), "{}", script.told);
        assert_eq!(script.work("expert-0").committed, vec![]);
        assert_eq!(script.work("expert-1").committed, vec![]);
    }
}

#[test]
fn a_new_leader_shortens_rests_and_quarantines_written_under_a_clock_that_was_ahead() {
    const FAR: Millis = Millis(1_000_000_000_000);
    let mut script = Script::trained_seed();
    let run = script.state.runs.values_mut().next().unwrap();
    for (expert, until) in [(0, Millis(5_000)), (1, FAR)] {
        let id = WorkId::Model(ModelId::Expert(expert));
        run.works.get_mut(&id).unwrap().phase = Phase::Backoff { until };
    }
    for (node, until) in [("n1", Millis(5_000)), ("n2", FAR)] {
        let node_then = Node { trust: Trust::Quarantined { until }, ..Node::default() };
        script.state.nodes.insert(NodeName(node.into()), node_then);
    }
    script.state.index = Index::of(&script.state);
    script.event(Event::TookLead { term: Term(2) });
    script.event(Event::Tick);
    assert_eq!(script.work("expert-0").phase, Phase::Backoff { until: Millis(5_000) });
    assert_eq!(script.work("expert-1").phase, Phase::Backoff { until: Millis(60_000) });
    let trust = |node: &str| script.state.nodes[&NodeName(node.into())].trust.clone();
    assert_eq!(trust("n1"), Trust::Quarantined { until: Millis(5_000) });
    assert_eq!(trust("n2"), Trust::Quarantined { until: Millis(64 * 600_000) });
}

#[test]
fn a_node_of_two_workers_is_retested_with_one_work_at_a_time() {
    let mut script = Script::new();
    let node = Node { trust: Trust::Retest, ..Node::default() };
    script.state.nodes.insert(NodeName("n1".into()), node);
    script.state.index = Index::of(&script.state);
    for worker in ["w1", "w2"] {
        let offer = Offer { node: NodeName("n1".into()), ..offer(worker, 1) };
        let (worker, withdrawn) = (WorkerId(worker.into()), BTreeMap::new());
        script.event(Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
    }
    script.event(Event::Applied { spec: Box::new(spec()), tars: 2 });
    assert!(matches!(script.work("index.0").phase, Phase::Running(_)));
    assert_eq!(script.work("index.1").phase, Phase::Waiting);
}

#[test]
fn a_device_withdrawn_before_its_worker_came_is_neither_used_nor_counted() {
    let mut script = Script::trained_seed();
    let (worker, offer) = (WorkerId("w1".into()), offer("w1", 2));
    let withdrawn = [(1, "XID 79".to_owned())].into();
    script.event(Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
    assert!(matches!(script.work("expert-0").phase, Phase::Waiting));
    assert_eq!(script.why("expert-0"), "needs 2 seats, the cluster has 1");
}

#[test]
fn however_many_ranks_end_with_many_words_their_gang_fits_a_stored_object() {
    let mut script = Script::trained(spec_with(&[
        ("ranks: 2, ", "ranks: 700, "),
        ("globalBatch: 128", "globalBatch: 700"),
        ("microBatch: 64", "microBatch: 1"),
    ]));
    script.attach("w1", 700, vec![]);
    let words = |rank: u32| Outcome::Failed(Failure::Crashed { rank, message: "é".repeat(1000) });
    for rank in (1..699).chain([0]) {
        script.exit("expert-0#1", rank, words(rank));
    }
    let gang = script.work("expert-0").gang().unwrap();
    let kept = |outcome: &Outcome| serde_json::to_vec(outcome).unwrap().len();
    let bytes: usize = gang.exited.values().map(kept).sum();
    assert_eq!(gang.exited.len(), 699);
    assert!(bytes < 200_000, "{bytes} bytes");
    // The first ones are told in full, and rank 0 whenever it ends.
    for rank in [0, 1, 16] {
        assert_eq!(gang.exited[&rank], words(rank));
    }
    assert_ne!(gang.exited[&17], words(17));
}
