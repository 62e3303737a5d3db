//! Time: clocks that go wrong, ranks that lag, gangs that come to nothing.

use super::*;

impl Script {
    /// The leader's clock is set to another time, and ticks on from there.
    fn set_clock(&mut self, millis: u64) {
        self.now = Millis(millis);
        self.event(Event::Tick);
    }
}

#[test]
fn a_clock_set_back_by_an_hour_makes_nobody_wait_an_hour() {
    const HOUR: u64 = 3_600_000;
    let mut script = Script::trained_seed();
    script.set_clock(2 * HOUR);
    script.join("w1");
    script.join("w2");
    script.exit("expert-0#1", 0, crashed(0));
    script.exit("expert-0#1", 1, crashed(1));
    script.inspected("expert-0#1", None);
    assert!(matches!(script.work("expert-0").phase, Phase::Backoff { .. }));
    script.event(Event::WorkerDetached { worker: WorkerId("w2".into()) });
    script.set_clock(HOUR);
    script.at(HOUR + 900);
    assert!(matches!(script.work("expert-0").phase, Phase::Backoff { .. }));
    assert!(script.state.workers.contains_key(&WorkerId("w2".into())));
    script.at(HOUR + 1_000);
    assert_eq!(script.work("expert-0").phase, Phase::Waiting);
    script.at(HOUR + 3_000);
    assert!(!script.state.workers.contains_key(&WorkerId("w2".into())));
}

#[test]
fn a_clock_that_leaps_ahead_loses_no_worker_and_stops_no_gang() {
    let mut script = Script::trained_seed();
    script.at(1_000);
    script.join("w1");
    script.join("w2");
    script.steps("expert-0#1", 300);
    script.event(Event::WorkerDetached { worker: WorkerId("w2".into()) });
    script.told.clear();
    script.set_clock(3_600_000);
    script.check(&expect![[""]]);
    // It has as long left as it had.
    script.at(3_602_900);
    script.check(&expect![[""]]);
    script.at(3_603_000);
    script.check(&expect![[r#"
        stop clipart/expert-0#1 rank 0 on w1:0, save: false
    "#]]);
}

#[test]
fn gangs_that_come_to_nothing_by_nobodys_fault_are_given_up_after_so_many() {
    let few = [("restarts: 1", "restarts: 1, fruitless: 3"), ("experts: 2", "experts: 1")];
    let mut script = Script::trained(spec_with(&few));
    for lost in 1..=4 {
        script.attach(&format!("w{lost}"), 2, vec![]);
        assert_eq!(
            script.work("expert-0").phase,
            Phase::Running(Gang {
                seats: (0..2)
                    .map(|slot| Seat { worker: WorkerId(format!("w{lost}")), slot })
                    .collect(),
                ..Gang::default()
            })
        );
        script.event(Event::WorkerLeft { worker: WorkerId(format!("w{lost}")) });
        script.inspected(&format!("expert-0#{lost}"), None);
    }
    let Phase::Failed { failure } = &script.work("expert-0").phase else {
        panic!("{:?}", script.work("expert-0").phase);
    };
    assert_eq!(
        failure.to_string(),
        "4 gangs in a row ended without a new checkpoint; the last: worker w4 left"
    );
    assert_eq!(script.work("expert-0").strikes, 0);
}

#[test]
fn a_checkpoint_begins_the_count_of_fruitless_gangs_anew() {
    let few = [("restarts: 1", "restarts: 1, fruitless: 1"), ("experts: 2", "experts: 1")];
    let mut script = Script::trained(spec_with(&few));
    for lost in 1..=5 {
        script.attach(&format!("w{lost}"), 2, vec![]);
        script.commit(&format!("expert-0#{lost}"), 300 + lost);
        script.event(Event::WorkerLeft { worker: WorkerId(format!("w{lost}")) });
        script.inspected(&format!("expert-0#{lost}"), None);
        assert_eq!(script.work("expert-0").phase, Phase::Waiting);
    }
}

#[test]
fn a_node_that_lags_for_ten_reports_is_marked_avoided_and_cleared_when_it_does_not() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    let report = |script: &mut Script, busy: u64| {
        for (worker, rank, busy_us) in [("w1", 0, 100_000), ("w2", 1, busy)] {
            let (worker, fence) = (WorkerId(worker.into()), fence_of("expert-0#1"));
            script.event(Event::Progressed { worker, fence, rank, done: 290, busy_us });
        }
    };
    let slower = |script: &Script| {
        script.state.nodes.get(&NodeName("n2".into())).and_then(|node| node.slower_percent)
    };
    for _ in 0..9 {
        report(&mut script, 140_000);
    }
    // One quick step, and the count begins anew.
    report(&mut script, 101_000);
    for _ in 0..9 {
        report(&mut script, 140_000);
    }
    assert_eq!(slower(&script), None);
    report(&mut script, 140_000);
    assert_eq!(slower(&script), Some(40));
    // A mark stops nobody, and the next gang sits elsewhere if it can.
    for other in ["w3", "w4", "w5"] {
        script.join(other);
    }
    assert_eq!(script.sits_at("expert-1"), ["w3:0", "w4:0"]);
    assert_eq!(script.sits_at("expert-0"), ["w1:0", "w2:0"]);
    let mut fine = script.clone();
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", None);
    assert_eq!(script.sits_at("expert-0"), ["w1:0", "w5:0"]);
    for _ in 0..9 {
        report(&mut fine, 110_000);
    }
    assert_eq!(slower(&fine), Some(40));
    report(&mut fine, 110_000);
    assert_eq!(slower(&fine), None);
}

#[test]
fn a_new_leader_orders_by_the_pace_that_a_run_had_when_it_last_saved() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.steps("expert-0#1", 290);
    script.at(30_000);
    script.steps("expert-0#1", 300);
    script.commit("expert-0#1", 300);
    let run = script.state.runs.values().next().unwrap().clone();
    let name = run.name().clone();
    let pace_in = |state: &State| state.index.run(&name).and_then(|facts| facts.pace);
    assert_eq!(pace_in(&script.state), Some(3_000_000));
    let works = run.works.iter().map(|(id, work)| (name.clone(), *id, work.clone())).collect();
    let nodes = script.state.nodes.clone();
    let restored = State::restore(Term(2), vec![run.head], works, BTreeMap::new(), nodes);
    assert_eq!(pace_in(&restored), Some(3_000_000));
}
