//! Gangs that were asked to save and leave, and whether they had saved.

use super::*;

/// `expert-0` trains at `w1` and `w2`, has saved step 300 and told of step 310.
fn training() -> Script {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.steps("expert-0#1", 289);
    script.commit("expert-0#1", 300);
    script.steps("expert-0#1", 310);
    script
}

fn stopped() -> [Outcome; 2] {
    [Outcome::Stopped, Outcome::Stopped]
}

impl Script {
    /// Both ranks of `expert-0` end, and this is what they left; says how that is counted.
    fn leaves(&mut self, outcomes: [Outcome; 2], newest: Option<u64>) -> Vec<String> {
        for (rank, outcome) in (0..).zip(outcomes) {
            self.exit("expert-0#1", rank, outcome);
        }
        assert_eq!(self.farewells, Vec::<String>::new(), "nobody knows yet what it left");
        self.inspected("expert-0#1", newest);
        std::mem::take(&mut self.farewells)
    }

    fn cancel(&mut self) {
        self.event(Event::CancelRequested { run: "clipart".parse().unwrap() });
    }
}

#[test]
fn whoever_is_asked_and_saves_is_counted_by_why_it_was_asked() {
    let withdrawn = |slot| Event::DeviceWithdrawn {
        worker: WorkerId("w1".into()),
        slot,
        // An agent that is told to go withdraws its seats, and its ranks save.
        reason: "the agent is leaving (SIGTERM)".into(),
    };
    let drained =
        Event::NodeCordoned { node: NodeName("n2".into()), reason: "".into(), drain: true };
    let orders = [
        (Event::Applied { spec: urgent(), tars: 1 }, "preempted"),
        (drained, "drained"),
        (withdrawn(0), "device_withdrawn"),
        (Event::CancelRequested { run: "clipart".parse().unwrap() }, "run_stopping"),
    ];
    for (order, why) in orders {
        let mut script = training();
        script.event(order);
        let told = script.leaves(stopped(), Some(312));
        assert_eq!(told, [format!("clipart/expert-0#1 {why}: saved")]);
    }
}

#[test]
fn a_checkpoint_that_was_reported_before_the_end_is_as_good_as_one_that_is_found() {
    let mut script = training();
    script.cancel();
    script.commit("expert-0#1", 312);
    assert_eq!(script.leaves(stopped(), None), ["clipart/expert-0#1 run_stopping: saved"]);
}

#[test]
fn whoever_is_killed_or_fails_before_it_has_saved_all_it_told_of_is_counted_so() {
    for outcomes in [stopped(), [crashed(0), Outcome::Stopped]] {
        for newest in [None, Some(300), Some(309)] {
            let mut script = training();
            script.cancel();
            let told = script.leaves(outcomes.clone(), newest);
            assert_eq!(told, ["clipart/expert-0#1 run_stopping: not_saved"], "{newest:?}");
        }
    }
    // What it did after it was asked counts, too.
    let mut script = training();
    script.cancel();
    script.steps("expert-0#1", 313);
    let told = script.leaves(stopped(), Some(312));
    assert_eq!(told, ["clipart/expert-0#1 run_stopping: not_saved"]);
    // Its machine went down first.
    let mut script = training();
    script.cancel();
    script.event(Event::WorkerLeft { worker: WorkerId("w2".into()) });
    let told = script.leaves(stopped(), None);
    assert_eq!(told, ["clipart/expert-0#1 run_stopping: not_saved"]);
}

#[test]
fn a_gang_without_a_step_of_its_own_has_nothing_to_save() {
    for told in [None, Some(288)] {
        let mut script = Script::trained_seed();
        script.join("w1");
        script.join("w2");
        told.into_iter().for_each(|step| script.steps("expert-0#1", step));
        script.cancel();
        let told = script.leaves(stopped(), None);
        assert_eq!(told, ["clipart/expert-0#1 run_stopping: nothing_to_save"]);
    }
}

#[test]
fn a_rank_that_was_told_to_stop_by_somebody_else_is_counted() {
    let mut script = training();
    script.commit("expert-0#1", 311);
    let told = script.leaves(stopped(), None);
    assert_eq!(told, ["clipart/expert-0#1 rank_gone: saved"]);
}

#[test]
fn a_gang_that_is_widened_is_counted() {
    let elastic = ("expert: {ranks: 2", "expert: {ranks: 2, minRanks: 1");
    let mut script = Script::trained(spec_with(&[elastic, ("experts: 2", "experts: 1")]));
    script.join("w1");
    script.at(1_000);
    script.join("w2");
    script.commit("expert-0#1", 300);
    script.at(2_000);
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.inspected("expert-0#1", Some(301));
    assert_eq!(script.farewells, ["clipart/expert-0#1 widened: saved"]);
}

#[test]
fn whoever_could_not_save_was_not_asked_and_a_job_has_nothing_to_save() {
    let mut script = training();
    let told = script.leaves([crashed(0), Outcome::Failed(Failure::PeerLost { rank: 1 })], None);
    assert_eq!(told, Vec::<String>::new());
    let mut script = training();
    script.at(60_000);
    assert!(script.told.contains("told where it stands"), "{}", script.told);
    assert_eq!(script.leaves(stopped(), None), Vec::<String>::new());
    let mut script = Script::new();
    script.event(Event::Applied { spec: Box::new(spec()), tars: 1 });
    script.join("w1");
    script.cancel();
    script.exit("index.0#1", 0, Outcome::Stopped);
    assert_eq!(script.farewells, Vec::<String>::new());
    assert!(script.state.leaving.is_empty());
}

#[test]
fn an_order_that_is_taken_back_asked_nobody() {
    let mut script = training();
    let cancel = Event::CancelRequested { run: "clipart".parse().unwrap() };
    let effects = step(&mut script.state, Limits::default(), script.now, cancel);
    assert_eq!(script.state.leaving.len(), 1);
    undo(&mut script.state, &Limits::default(), effects);
    assert!(script.state.leaving.is_empty());
}
