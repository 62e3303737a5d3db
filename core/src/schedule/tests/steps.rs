//! What steps say: who hangs, who lags, how fast a run goes.

use super::*;

fn seated() -> Script {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.told.clear();
    script
}

impl Script {
    fn report(&mut self, worker: &str, rank: u32, done: u64, busy_us: u64) {
        let (worker, fence) = (WorkerId(worker.into()), fence_of("expert-0#1"));
        self.event(Event::Progressed { worker, fence, rank, done, busy_us });
    }

    fn pace(&self) -> Option<u64> {
        self.state.index.run(&"clipart".parse().unwrap()).unwrap().pace
    }
}

#[test]
fn a_step_that_is_told_again_or_by_another_rank_is_no_sign_of_life() {
    for rank in [0, 1] {
        let mut script = seated();
        script.steps("expert-0#1", 300);
        for second in 1..=60 {
            script.at(second * 1_000);
            assert_eq!(script.told.is_empty(), second < 60, "{second} {}", script.told);
            if second < 60 {
                script.report(["w1", "w2"][rank], u32::try_from(rank).unwrap(), 300, 0);
            }
        }
        let Phase::Stopping { cause, .. } = &script.work("expert-0").phase else { panic!() };
        assert_eq!(*cause, Stop::Hung { seconds: 60 });
        // Each rank is asked where it stands before it is killed.
        assert_eq!(script.told.matches("save: false, told where it stands").count(), 2);
    }
}

#[test]
fn a_gang_whose_steps_are_long_hangs_after_three_of_them() {
    let mut script = seated();
    for step in 1..6 {
        script.at(step * 40_000);
        script.steps("expert-0#1", 288 + step);
    }
    script.at(script.now.0 + 119_000);
    script.check(&expect![[""]]);
    script.at(script.now.0 + 30_000);
    assert!(script.told.contains("stop clipart/expert-0#1"), "{}", script.told);
}

#[test]
fn a_gang_that_ended_is_watched_no_longer_and_the_next_one_is() {
    let mut script = seated();
    script.steps("expert-0#1", 300);
    script.commit("expert-0#1", 432);
    script.exit("expert-0#1", 0, done());
    script.exit("expert-0#1", 1, done());
    script.inspected("expert-0#1", None);
    script.exit("evaluate.1#1", 0, done());
    script.steps("expert-1#1", 300);
    script.at(script.now.0 + 61_000);
    assert!(script.told.contains("stop clipart/expert-1#1 rank 0"), "{}", script.told);
}

#[test]
fn the_last_step_may_be_told_and_none_after_it() {
    let mut script = seated();
    script.steps("expert-0#1", 432);
    script.check(&expect![[""]]);
    script.steps("expert-0#1", 433);
    assert!(script.told.contains("ends at step 432"));
}

#[test]
fn a_rank_that_did_not_measure_its_time_is_compared_with_nobody() {
    let mut script = seated();
    for _ in 0..12 {
        script.report("w1", 0, 300, 100_000);
        script.report("w2", 1, 300, 0);
    }
    assert!(script.state.nodes.is_empty(), "{:?}", script.state.nodes);
}

#[test]
fn a_run_s_pace_is_kept_until_it_is_off_by_a_quarter() {
    let mut script = seated();
    for (at, step, pace) in [
        (10_000, 300, None),
        (20_000, 301, Some(10_000_000)),
        (30_000, 302, Some(10_000_000)),
        // 10.5 and 17.9 seconds, smoothed.
        (42_000, 303, Some(10_000_000)),
        (82_000, 304, Some(17_875_000)),
    ] {
        script.at(at);
        script.steps("expert-0#1", step);
        assert_eq!(script.pace(), pace, "{at}");
    }
}

#[test]
fn who_runs_is_watched_and_nobody_else_also_after_an_event_was_taken_back() {
    let watched = |script: &Script| script.state.seen.keys().map(|(_, id)| *id).collect::<Vec<_>>();
    let limits = Limits::default();
    let mut script = Script::trained_seed();
    script.join("w1");
    let (worker, withdrawn, ranks) = (WorkerId("w2".into()), BTreeMap::new(), vec![]);
    let joined = Event::WorkerAttached { worker, offer: offer("w2", 1), withdrawn, ranks };
    let effects = step(&mut script.state, limits, script.now, joined);
    assert_eq!(watched(&script), [WorkId::Model(ModelId::Expert(0))]);
    undo(&mut script.state, &limits, effects);
    assert_eq!(watched(&script), []);
    script.join("w2");
    let (worker, fence, outcome) = (WorkerId("w1".into()), fence_of("expert-0#1"), crashed(0));
    let exited = Event::RankExited { worker, fence, rank: 0, outcome };
    let effects = step(&mut script.state, limits, script.now, exited);
    assert_eq!(watched(&script), []);
    undo(&mut script.state, &limits, effects);
    assert_eq!(watched(&script), [WorkId::Model(ModelId::Expert(0))]);
}

#[test]
fn a_leader_that_read_the_state_under_its_own_term_still_waits_for_its_workers() {
    let mut script = seated();
    script.state.term = Term(2);
    script.event(Event::TookLead { term: Term(2) });
    script.event(Event::WorkerDetached { worker: WorkerId("w2".into()) });
    script.at(7_500);
    assert_eq!(script.state.workers.len(), 2);
    script.at(8_000);
    assert!(script.state.workers.is_empty());
}

#[test]
fn a_hang_stays_a_hang_when_the_last_ranks_only_see_the_others_go() {
    let mut script = seated();
    script.steps("expert-0#1", 300);
    script.at(61_000);
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Failed(Failure::PeerLost { rank: 1 }));
    script.inspected("expert-0#1", None);
    let failure = script.work("expert-0").last_failure.clone();
    assert!(matches!(failure, Some(Failure::Stalled { .. })), "{failure:?}");
}
