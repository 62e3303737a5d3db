//! How often seats fail, as gangs are told when they start.

use super::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// A run whose document expects each seat to fail once a day.
fn failing() -> Script {
    failing_with(&[])
}

fn failing_with(others: &[(&str, &str)]) -> Script {
    let usual = [("keep: 3", "failuresPerDay: 100%, keep: 3"), ("restarts: 1", "restarts: 9")];
    let mut script = Script::trained(spec_with(&[&usual[..], others].concat()));
    script.join("w1");
    script.join("w2");
    script
}

impl Script {
    /// A gang makes a step an hour.
    fn train(&mut self, fence: &str, hours: u64) {
        let day = Millis(DAY);
        let patient = Limits { pause: day, hang: day, way: day, ..Limits::default() };
        let fence = fence_of(fence);
        for done in 0..hours {
            let (worker, fence) = (WorkerId("w1".into()), fence.clone());
            let done = 289 + done;
            let told = Event::Progressed { worker, fence, rank: 0, done, busy_us: 0 };
            for event in [told, Event::Tick] {
                let effects = step(&mut self.state, patient, self.now, event);
                assert_eq!((effects.refusal, effects.actions), (None, vec![]));
            }
            self.now.0 += HOUR;
        }
        let effects = step(&mut self.state, patient, self.now, Event::Tick);
        assert_eq!(effects.actions, vec![]);
    }

    /// Both ranks of a gang leave; whoever is next sits.
    fn ends(&mut self, fence: &str, outcomes: [Outcome; 2]) {
        for (rank, outcome) in (0..).zip(outcomes) {
            self.exit(fence, rank, outcome);
        }
        self.inspected(fence, None);
    }
}

#[test]
fn a_gang_is_told_what_is_stated_until_something_fails_and_then_more() {
    let mut script = failing();
    assert_eq!(script.between, Some(Millis(DAY)));
    script.ends("expert-0#1", [crashed(0), Outcome::Failed(Failure::PeerLost { rank: 1 })]);
    assert_eq!(script.state.seat_failures(), 1);
    // One is stated for the first day, and one was seen.
    assert_eq!(script.between, Some(Millis(DAY / 2)));
    script.ends("expert-1#1", [Outcome::Stopped, crashed(1)]);
    assert_eq!(script.state.seat_failures(), 2);
    script.at(2_000);
    assert_eq!(script.between, Some(Millis(DAY / 3)));
}

#[test]
fn seats_that_last_make_gangs_save_less_often() {
    let mut script = failing();
    script.train("expert-0#1", 36);
    assert_eq!(script.state.seat_time(), Millis(3 * DAY));
    script.commit("expert-0#1", 324);
    script.ends("expert-0#1", [crashed(0), crashed(1)]);
    // Three days of two seats and the one that is stated, for two failures.
    assert_eq!(script.between, Some(Millis(2 * DAY)));
}

#[test]
fn whoever_is_asked_to_leave_did_not_fail_however_that_ends() {
    let worker = |name: &str| WorkerId(name.into());
    let orders = [
        Event::Applied { spec: urgent(), tars: 1 },
        Event::NodeCordoned { node: NodeName("n1".into()), reason: "fan".into(), drain: true },
        Event::DeviceWithdrawn { worker: worker("w1"), slot: 0, reason: "leaving".into() },
        Event::CancelRequested { run: "clipart".parse().unwrap() },
    ];
    for order in orders {
        let mut script = failing();
        script.event(order);
        script.ends("expert-0#1", [crashed(0), Outcome::Stopped]);
        assert_eq!(script.state.seat_failures(), 0, "{}", script.told);
    }
    let mut script = failing();
    script.ends("expert-0#1", [Outcome::Stopped, Outcome::Stopped]);
    script.event(Event::WorkerLeft { worker: worker("w1") });
    script.exit("expert-1#1", 1, Outcome::Failed(Failure::PeerLost { rank: 1 }));
    script.inspected("expert-1#1", None);
    assert!(matches!(script.work("expert-1").last_failure, Some(Failure::WorkerLeft { .. })));
    assert_eq!(script.state.seat_failures(), 0);
}

#[test]
fn a_gang_that_is_widened_did_not_fail() {
    let elastic =
        [("expert: {ranks: 2", "expert: {ranks: 2, minRanks: 1"), ("experts: 2", "experts: 1")];
    let mut script = Script::trained(spec_with(&elastic));
    script.join("w1");
    script.join("w2");
    script.commit("expert-0#1", 300);
    script.at(1_000);
    assert!(matches!(
        script.work("expert-0").phase,
        Phase::Stopping { cause: Stop::Widened { to: 2 }, .. }
    ));
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.inspected("expert-0#1", Some(301));
    assert_eq!(script.state.seat_failures(), 0);
    assert_eq!(script.work("expert-0").gang().unwrap().seats.len(), 2);
}

#[test]
fn what_no_seat_is_to_blame_for_does_not_count() {
    let message = || "m".to_owned();
    let failures = [
        (Failure::Data { message: message() }, 0),
        (Failure::Config { message: message() }, 0),
        (Failure::Storage { message: message() }, 0),
        (Failure::Launch { rank: 0, message: message() }, 0),
        (Failure::Stalled { rank: 0, seconds: 60 }, 1),
        (Failure::PeerLost { rank: 0 }, 1),
    ];
    for (failure, seen) in failures {
        let mut script = failing();
        script.exit("expert-0#1", 0, Outcome::Failed(failure.clone()));
        script.exit("expert-0#1", 1, Outcome::Failed(Failure::PeerLost { rank: 1 }));
        assert_eq!(script.state.seat_failures(), seen, "{failure}");
    }
    // Nor what a job does: its seat is not a gang's.
    let mut script = Script::new();
    script.event(Event::Applied { spec: Box::new(spec()), tars: 1 });
    script.join("w1");
    script.at(1_000);
    script.exit("index.0#1", 0, crashed(0));
    assert_eq!((script.state.seat_failures(), script.state.seat_time()), (0, Millis(0)));
}

#[test]
fn a_gang_that_hangs_and_every_machine_that_is_lost_count() {
    let mut script = failing_with(&[("experts: 2", "experts: 1")]);
    script.steps("expert-0#1", 289);
    script.at(60_000);
    script.ends("expert-0#1", [Outcome::Stopped, Outcome::Stopped]);
    assert_eq!(script.state.seat_failures(), 1);
    for lost in 2..=3 {
        script.at(script.now.0 + 4_000);
        script.event(Event::WorkerDetached { worker: WorkerId("w2".into()) });
        script.at(script.now.0 + 4_000);
        let fence = format!("expert-0#{lost}");
        script.exit(&fence, 0, Outcome::Failed(Failure::PeerLost { rank: 0 }));
        script.inspected(&fence, None);
        assert_eq!(script.state.seat_failures(), lost);
        script.join("w2");
    }
}

#[test]
fn a_model_that_fails_again_before_it_has_saved_counts_once() {
    let mut script = failing_with(&[("experts: 2", "experts: 1")]);
    let fail = |script: &mut Script| {
        let fence = format!("expert-0#{}", script.work("expert-0").incarnation);
        script.ends(&fence, [crashed(0), crashed(1)]);
        script.at(script.now.0 + 20_000);
        script.state.seat_failures()
    };
    assert_eq!([fail(&mut script), fail(&mut script)], [1, 1]);
    script.commit("expert-0#3", 300);
    assert_eq!([fail(&mut script), fail(&mut script)], [2, 2]);
}

#[test]
fn a_new_leader_begins_with_what_is_stated_and_counts_the_gangs_it_finds() {
    let mut script = failing();
    script.ends("expert-0#1", [crashed(0), crashed(1)]);
    script.state = State::restore(
        Term(1),
        script.state.runs.values().map(|run| run.head.clone()).collect(),
        script
            .state
            .runs
            .iter()
            .flat_map(|(name, run)| {
                run.works.iter().map(|(id, work)| (name.clone(), *id, work.clone()))
            })
            .collect(),
        script.state.workers.clone(),
        script.state.nodes.clone(),
    );
    script.event(Event::TookLead { term: Term(2) });
    script.event(Event::TookLead { term: Term(2) });
    for (worker, rank) in [("w1", 0), ("w2", 1)] {
        let ranks = vec![LiveRank { fence: fence_of("expert-1#1"), rank, slot: 0 }];
        script.attach(worker, 1, ranks);
    }
    assert_eq!(script.between, Some(Millis(DAY)));
    script.at(10_000);
    assert_eq!(script.state.seat_time(), Millis(20_000));
    assert_eq!(script.state.seat_failures(), 0);
}

#[test]
fn an_event_that_is_taken_back_was_no_failure() {
    let mut script = failing();
    let before = script.state.failures;
    script.exit("expert-0#1", 1, Outcome::Failed(Failure::PeerLost { rank: 1 }));
    let left = script.state.failures;
    assert_ne!(left, before, "its seats' time has ended");
    let (worker, fence, outcome) = (WorkerId("w1".into()), fence_of("expert-0#1"), crashed(0));
    let exited = Event::RankExited { worker, fence, rank: 0, outcome };
    let effects = step(&mut script.state, Limits::default(), script.now, exited);
    assert_eq!(script.state.seat_failures(), 1);
    undo(&mut script.state, &Limits::default(), effects);
    assert_eq!(script.state.failures, left);
}
