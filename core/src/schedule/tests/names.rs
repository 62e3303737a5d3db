//! Names for metrics and programs: each of a closed set, so that nobody's board breaks.

use super::*;

#[test]
fn whatever_is_counted_has_its_own_name() {
    let failure = Failure::PeerLost { rank: 0 };
    let (work, run) = (WorkId::Model(ModelId::Seed), || "clipart".parse().unwrap());
    let seat = Seat { worker: WorkerId("w1".into()), slot: 0 };
    let phases = [
        RunPhase::Active,
        RunPhase::Stopping { then: StopFor::Cancel },
        RunPhase::Finished,
        RunPhase::Failed { work, failure: failure.clone() },
        RunPhase::Cancelled,
    ];
    let names = phases.map(|it| it.name());
    assert_eq!(names, ["active", "stopping", "finished", "failed", "cancelled"]);
    let fors = [StopFor::Cancel, StopFor::Failure { work, failure }, StopFor::Resume];
    assert_eq!(fors.map(|it| it.name()), ["cancel", "failure", "resume"]);
    let stops = [
        Stop::RankGone,
        Stop::RunStopping,
        Stop::Preempted { by: run(), work },
        Stop::Drained { node: NodeName("n1".into()) },
        Stop::DeviceWithdrawn { seat },
        Stop::Widened { to: 2 },
        Stop::Hung { seconds: 60 },
    ];
    // Who hangs is not asked to save.
    assert_eq!(stops.map(|it| it.name()), *[&ASKED[..], &["hung"]].concat());
    assert_eq!(Kept::EVERY.map(Kept::name), ["saved", "not_saved", "nothing_to_save"]);
    let trusts = [Trust::Full, Trust::Quarantined { until: Millis(1) }, Trust::Retest];
    assert_eq!(trusts.map(|it| it.name()), ["full", "quarantined", "retest"]);
    let waits = [
        Wait::NoWorkers,
        Wait::BlockedBy { work },
        Wait::Behind { run: run(), work },
        Wait::RunEnded,
    ];
    assert_eq!(waits.map(|it| it.name()), ["no_workers", "blocked_by", "behind", "run_ended"]);
    let (worker, fence) = (WorkerId("w1".into()), fence_of("expert-0#1"));
    let actions = [Action::Inspect { fence }, Action::Supersede { worker }];
    assert_eq!(actions.map(|it| it.name()), ["inspect", "supersede"]);
    assert_eq!(
        [Event::Tick.name(), Event::TookLead { term: Term(1) }.name()],
        ["tick", "took_lead"]
    );
    assert_eq!(Refusal::NotSeated.name(), "not_seated");
}
