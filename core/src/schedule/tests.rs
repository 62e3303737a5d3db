//! Scripts of events with the actions they lead to; the property and the simulation are in `clade-tests`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::index::Index;
use super::invariants::{About, violations, whole};
use super::*;
use crate::ids::{
    CheckpointRef, Digest, Fence, Incarnation, ModelId, NodeName, Seat, Stage, Step, Term, WorkId,
    WorkerId,
};
use crate::job::{Failure, Outcome};
use crate::spec::RunSpec;

mod broken;
mod broken_seats;
mod ends;
mod failures;
mod farewells;
mod homes;
mod kept;
mod leaving;
mod names;
mod pace;
mod parts;
mod placing;
mod steps;
mod trust;
mod widths;

const DEMO: &str = include_str!("../../../deploy/demo/run.yaml");

/// A run of two experts of two ranks over one tar.
fn spec() -> RunSpec {
    spec_with(&[])
}

/// The same with other words in its document.
fn spec_with(others: &[(&str, &str)]) -> RunSpec {
    let document = DEMO
        .replace("experts: 4", "experts: 2")
        .replace("expert: {ranks: 1", "expert: {ranks: 2")
        .replace("restarts: 5", "restarts: 1")
        .replace("baselines: [dense]", "baselines: []");
    let document = others.iter().fold(document, |document, (from, to)| {
        assert!(document.contains(from), "{from}");
        document.replace(from, to)
    });
    RunSpec::parse(&document).unwrap()
}

#[derive(Clone)]
struct Script {
    state: State,
    now: Millis,
    told: String,
    /// What the rank that was ordered to start last was told of failures.
    between: Option<Millis>,
    farewells: Vec<String>,
}

impl Script {
    fn new() -> Self {
        Self {
            state: State::default(),
            now: Millis(0),
            told: String::new(),
            between: None,
            farewells: vec![],
        }
    }

    /// A run whose stages are done and whose seed is trained, with workers `w1` and `w2` of one slot.
    fn trained_seed() -> Self {
        Self::trained(spec())
    }

    fn trained(spec: RunSpec) -> Self {
        let mut script = Self::new();
        script.event(Event::Applied { spec: Box::new(spec), tars: 1 });
        let run = script.state.runs.values_mut().next().unwrap();
        for (id, work) in &mut run.works {
            match id {
                WorkId::Job(job) if job.stage < Stage::Evaluate => work.phase = Phase::Done,
                WorkId::Model(ModelId::Seed) => {
                    work.phase = Phase::Done;
                    work.committed = vec![checkpoint(ModelId::Seed, 1, 288)];
                }
                WorkId::Job(_) | WorkId::Model(_) => (),
            }
        }
        // Evaluating the seed would take the first seat.
        run.works.get_mut(&WorkId::job(Stage::Evaluate, 0)).unwrap().phase = Phase::Done;
        script.state.index = Index::of(&script.state);
        script.told.clear();
        script
    }

    fn event(&mut self, event: Event) {
        let about = About::of(&event);
        let effects = step(&mut self.state, Limits::default(), self.now, event);
        assert_eq!(violations(&about, &effects, &self.state), vec![]);
        assert_eq!(whole(&self.state, self.now), Vec::<String>::new());
        self.farewells.extend(effects.farewells.into_iter().map(|it| {
            let Farewell { fence, why, kept } = it;
            format!("{fence} {why}: {}", kept.name())
        }));
        for action in effects.actions {
            let line = match action {
                Action::StartRank(start) => {
                    self.between = start.between_failures;
                    let from = start.resume.or_else(|| start.models.into_values().next());
                    let from = from.map_or("nothing".to_owned(), |it| it.to_string());
                    format!(
                        "start {} rank {} on {} from {from}",
                        start.fence, start.rank, start.seat
                    )
                }
                Action::StopRank { seat, fence, rank, save, tell } => {
                    let save =
                        if tell { "false, told where it stands".into() } else { save.to_string() };
                    format!("stop {fence} rank {rank} on {seat}, save: {save}")
                }
                Action::ShareRendezvous { worker, fence, .. } => {
                    format!("tell {worker} where {fence} meets")
                }
                Action::Inspect { fence } => format!("inspect {fence}"),
                Action::Collect { checkpoints, .. } => {
                    let all: Vec<String> = checkpoints.iter().map(ToString::to_string).collect();
                    format!("collect {}", all.join(", "))
                }
                Action::Refuse { worker, fence, why } => format!("refuse {worker} {fence}: {why}"),
                Action::Supersede { worker } => format!("supersede {worker}"),
            };
            writeln!(self.told, "{line}").unwrap();
        }
    }

    /// Lets time pass as it does: a leader ticks ten times a second.
    fn at(&mut self, millis: u64) {
        while self.now.0 < millis {
            self.now = Millis(millis.min(self.now.0 + 500));
            self.event(Event::Tick);
        }
    }

    fn join(&mut self, worker: &str) {
        self.attach(worker, 1, vec![]);
    }

    fn attach(&mut self, worker: &str, slots: u32, ranks: Vec<LiveRank>) {
        let offer = offer(worker, slots);
        let worker = WorkerId(worker.into());
        self.event(Event::WorkerAttached { worker, offer, withdrawn: BTreeMap::new(), ranks });
    }

    /// The worker of a rank's seat says that it is gone.
    fn exit(&mut self, fence: &str, rank: u32, outcome: Outcome) {
        let fence = fence_of(fence);
        let seat = self.state.seat(&fence, rank).cloned();
        let worker = seat.map_or_else(|| WorkerId("w1".into()), |seat| seat.worker);
        self.event(Event::RankExited { worker, fence, rank, outcome });
    }

    fn steps(&mut self, fence: &str, done: u64) {
        let fence = fence_of(fence);
        let worker = self.state.seat(&fence, 0).unwrap().worker.clone();
        self.event(Event::Progressed { worker, fence, rank: 0, done, busy_us: 0 });
    }

    fn cordon(&mut self, node: &str, drain: bool) {
        let node = NodeName(node.into());
        self.event(Event::NodeCordoned { node, reason: "fan".into(), drain });
    }

    fn commit(&mut self, fence: &str, step: u64) {
        let fence = fence_of(fence);
        let checkpoint = checkpoint(fence.work.model().unwrap(), fence.incarnation.0, step);
        let seat = self.state.seat(&fence, 0).cloned();
        let worker = seat.map_or_else(|| WorkerId("w1".into()), |seat| seat.worker);
        self.event(Event::CheckpointReported { worker, fence, checkpoint });
    }

    fn inspected(&mut self, fence: &str, step: Option<u64>) {
        let fence = fence_of(fence);
        let of = |step| checkpoint(fence.work.model().unwrap(), fence.incarnation.0, step);
        let newest = step.map(of);
        self.event(Event::Inspected { fence, newest });
    }

    fn why(&self, work: &str) -> String {
        let run = "clipart".parse().unwrap();
        why_waiting(&self.state, &run, work.parse().unwrap(), self.now)
            .map_or_else(String::new, |wait| wait.to_string())
    }

    fn work(&self, work: &str) -> &Work {
        self.state.work(&"clipart".parse().unwrap(), work.parse().unwrap()).unwrap()
    }

    fn check(&mut self, expected: &Expect) {
        expected.assert_eq(&std::mem::take(&mut self.told));
    }
}

/// Every worker is a node of its own.
fn offer(worker: &str, slots: u32) -> Offer {
    let node = NodeName(worker.replace('w', "n"));
    Offer { node, slots, kind: "cpu".into(), domain: "rack".into(), ..Offer::default() }
}

/// `expert-1#2`
fn fence_of(text: &str) -> Fence {
    let (work, incarnation) = text.split_once('#').unwrap();
    Fence {
        run: "clipart".parse().unwrap(),
        work: work.parse().unwrap(),
        incarnation: Incarnation(incarnation.parse().unwrap()),
    }
}

fn checkpoint(model: ModelId, incarnation: u64, step: u64) -> CheckpointRef {
    let (incarnation, step, manifest) = (Incarnation(incarnation), Step(step), Digest([0; 32]));
    CheckpointRef { model, incarnation, step, manifest }
}

fn crashed(rank: u32) -> Outcome {
    Outcome::Failed(Failure::Crashed { rank, message: "signal 9".into() })
}

fn done() -> Outcome {
    Outcome::Done { counts: BTreeMap::new() }
}

#[test]
fn a_gang_starts_only_when_all_of_its_seats_are_held() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.check(&expect![[""]]);
    assert_eq!(script.why("expert-0"), "needs 2 seats, the cluster has 1");
    assert_eq!(script.why("expert-1"), "needs 2 seats, the cluster has 1");
    assert_eq!(script.why("report.0"), "waits for evaluate");
    script.join("w2");
    script.check(&expect![[r#"
        start clipart/expert-0#1 rank 0 on w1:0 from seed gang-1 step-288
        start clipart/expert-0#1 rank 1 on w2:0 from seed gang-1 step-288
    "#]]);
}

#[test]
fn losing_one_rank_stops_the_gang_and_the_next_resumes_from_the_last_commit() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.commit("expert-0#1", 300);
    script.told.clear();
    script.exit("expert-0#1", 1, crashed(1));
    script.exit("expert-0#1", 0, Outcome::Failed(Failure::PeerLost { rank: 0 }));
    // A candidate that was never reported is found and recorded before the next gang starts.
    script.inspected("expert-0#1", Some(310));
    script.check(&expect![[r#"
        stop clipart/expert-0#1 rank 0 on w1:0, save: false
        inspect clipart/expert-0#1
        start clipart/expert-1#1 rank 0 on w1:0 from seed gang-1 step-288
        start clipart/expert-1#1 rank 1 on w2:0 from seed gang-1 step-288
    "#]]);
    assert_eq!(
        script.work("expert-0").last_failure,
        Some(Failure::Crashed { rank: 1, message: "signal 9".into() })
    );
    script.at(2_000);
    script.exit("expert-1#1", 0, crashed(0));
    script.exit("expert-1#1", 1, crashed(1));
    script.inspected("expert-1#1", None);
    script.at(4_000);
    script.check(&expect![[r#"
        stop clipart/expert-1#1 rank 1 on w2:0, save: false
        inspect clipart/expert-1#1
        start clipart/expert-0#2 rank 0 on w1:0 from expert-0 gang-1 step-310
        start clipart/expert-0#2 rank 1 on w2:0 from expert-0 gang-1 step-310
    "#]]);
}

#[test]
fn what_a_superseded_gang_says_is_refused() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.exit("expert-0#1", 0, crashed(0));
    script.exit("expert-0#1", 1, Outcome::Failed(Failure::PeerLost { rank: 1 }));
    script.inspected("expert-0#1", None);
    script.told.clear();
    script.commit("expert-0#1", 400);
    script.exit("expert-0#1", 0, done());
    script.check(&expect![[r#"
        refuse w1 clipart/expert-0#1: superseded by incarnation 2
        refuse w1 clipart/expert-0#1: superseded by incarnation 2
    "#]]);
    assert_eq!(script.work("expert-0").committed, vec![]);
}

#[test]
fn a_model_without_progress_is_given_up_after_its_budget_and_the_other_goes_on() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    for incarnation in 1..=2 {
        let fence = format!("expert-0#{incarnation}");
        script.exit(&fence, 0, crashed(0));
        script.exit(&fence, 1, crashed(1));
        script.inspected(&fence, None);
        if incarnation == 1 {
            // expert-1 took the seats meanwhile; it must end before expert-0 is tried again.
            script.commit("expert-1#1", 432);
            script.exit("expert-1#1", 0, done());
            script.exit("expert-1#1", 1, done());
            script.inspected("expert-1#1", Some(432));
            script.exit("evaluate.2#1", 0, done());
        }
        script.at(10_000 * incarnation);
    }
    let given_up = |work: &Work| matches!(work.phase, Phase::Failed { .. });
    assert!(given_up(script.work("expert-0")));
    assert_eq!(script.work("expert-1").phase, Phase::Done);
    assert_eq!(script.why("evaluate.1"), "the run has ended");
    let run = script.state.runs.values().next().unwrap();
    assert!(matches!(run.head.phase, RunPhase::Failed { .. }), "{:?}", run.head.phase);
    // Applying the same document takes it up again.
    script.told.clear();
    script.event(Event::Applied { spec: Box::new(spec()), tars: 0 });
    script.check(&expect![[r#"
        start clipart/expert-0#3 rank 0 on w1:0 from seed gang-1 step-288
        start clipart/expert-0#3 rank 1 on w2:0 from seed gang-1 step-288
    "#]]);
}

#[test]
fn bad_data_stops_the_run_at_once_and_burns_no_restart() {
    let mut script = Script::new();
    script.event(Event::Applied { spec: Box::new(spec()), tars: 1 });
    script.join("w1");
    let failure = Failure::Data { message: "7 of 9 pairs are unusable".into() };
    script.exit("index.0#1", 0, Outcome::Failed(failure));
    script.check(&expect![[r#"
        start clipart/index.0#1 rank 0 on w1:0 from nothing
    "#]]);
    assert!(matches!(
        script.state.runs.values().next().unwrap().head.phase,
        RunPhase::Failed { .. }
    ));
}

#[test]
fn a_lost_worker_stops_only_the_gangs_seated_there() {
    let mut script = Script::trained_seed();
    for worker in ["w1", "w2", "w3", "w4"] {
        script.join(worker);
    }
    script.told.clear();
    script.event(Event::WorkerDetached { worker: WorkerId("w4".into()) });
    script.at(2_900);
    script.check(&expect![[""]]);
    script.at(3_000);
    script.check(&expect![[r#"
        stop clipart/expert-1#1 rank 0 on w3:0, save: false
    "#]]);
    assert_eq!(script.work("expert-0").incarnation, Incarnation(1));
    assert!(matches!(script.work("expert-0").phase, Phase::Running(_)));
    assert_eq!(script.work("expert-1").strikes, 0);
}

#[test]
fn a_change_of_leadership_restarts_no_gang_whose_worker_finds_its_way_back() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.told.clear();
    script.event(Event::TookLead { term: Term(2) });
    for (worker, rank) in [("w1", 0), ("w2", 1)] {
        let ranks = vec![LiveRank { fence: fence_of("expert-0#1"), rank, slot: 0 }];
        script.attach(worker, 1, ranks);
    }
    script.at(60_000);
    script.check(&expect![[r#"
        start clipart/expert-0#1 rank 0 on w1:0 from seed gang-1 step-288
        start clipart/expert-0#1 rank 1 on w2:0 from seed gang-1 step-288
    "#]]);
    assert_eq!(script.work("expert-0").incarnation, Incarnation(1));
    assert_eq!(script.work("expert-0").restarts, 0);
}

#[test]
fn an_unknown_worker_with_live_ranks_is_superseded() {
    let mut script = Script::trained_seed();
    let ranks = vec![LiveRank { fence: fence_of("expert-0#1"), rank: 0, slot: 0 }];
    script.attach("w9", 1, ranks);
    script.check(&expect![[r#"
        supersede w9
    "#]]);
}

#[test]
fn cancelling_lets_gangs_save_and_ends_when_their_seats_are_free() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.told.clear();
    script.event(Event::CancelRequested { run: "clipart".parse().unwrap() });
    script.commit("expert-0#1", 301);
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", Some(301));
    script.check(&expect![[r#"
        stop clipart/expert-0#1 rank 0 on w1:0, save: true
        stop clipart/expert-0#1 rank 1 on w2:0, save: true
        inspect clipart/expert-0#1
    "#]]);
    assert_eq!(script.state.runs.values().next().unwrap().head.phase, RunPhase::Cancelled);
    assert_eq!(script.work("expert-0").committed_step(), Step(301));
}

#[test]
fn a_run_applied_while_it_stops_goes_on_once_its_seats_are_free() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.event(Event::CancelRequested { run: "clipart".parse().unwrap() });
    script.event(Event::Applied { spec: Box::new(spec()), tars: 0 });
    script.told.clear();
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", Some(301));
    script.at(1);
    script.check(&expect![[r#"
        inspect clipart/expert-0#1
        start clipart/expert-1#1 rank 0 on w1:0 from seed gang-1 step-288
        start clipart/expert-1#1 rank 1 on w2:0 from seed gang-1 step-288
    "#]]);
    assert_eq!(script.state.runs.values().next().unwrap().head.phase, RunPhase::Active);
}

#[test]
fn only_the_newest_checkpoints_are_kept() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.told.clear();
    for step in [300, 310, 320, 330] {
        script.commit("expert-0#1", step);
    }
    // Said again after a broken stream, an old one is not news.
    script.commit("expert-0#1", 300);
    script.check(&expect![[r#"
        collect expert-0 gang-1 step-300
    "#]]);
    assert_eq!(script.work("expert-0").committed_step(), Step(330));
}

#[test]
fn every_phase_and_outcome_is_read_back_as_it_was_saved() {
    let gang = Gang {
        seats: vec![Seat { worker: WorkerId("w1".into()), slot: 0 }; 3],
        exited: [(0, done()), (1, crashed(1)), (2, Outcome::Stopped)].into(),
        rendezvous: Some("127.0.0.1:1/secret".into()),
    };
    let failure = Failure::WorkerLost { worker: "w1".into() };
    let counts: BTreeMap<String, u64> = [("pairs".into(), 3)].into();
    let phases = [
        Phase::Waiting,
        Phase::Backoff { until: Millis(5) },
        Phase::Running(gang.clone()),
        Phase::Stopping { gang: gang.clone(), cause: Stop::RankGone },
        Phase::Stopping { gang: gang.clone(), cause: Stop::RunStopping },
        Phase::Stopping { gang: gang.clone(), cause: Stop::Hung { seconds: 61 } },
        Phase::Stopping {
            gang: gang.clone(),
            cause: Stop::Preempted {
                by: "urgent".parse().unwrap(),
                work: WorkId::Model(ModelId::Seed),
            },
        },
        Phase::Stopping { gang, cause: Stop::Drained { node: NodeName("n1".into()) } },
        Phase::Inspecting { verdict: Verdict::Done { counts: counts.clone() } },
        Phase::Inspecting { verdict: Verdict::Stopped },
        Phase::Inspecting { verdict: Verdict::Failed { failure: failure.clone() } },
        Phase::Done,
        Phase::Failed { failure: failure.clone() },
    ];
    for phase in phases {
        let work = Work {
            phase,
            last_failure: Some(failure.clone()),
            committed: vec![checkpoint(ModelId::Seed, 1, 2)],
            counts: counts.clone(),
            ..Work::new()
        };
        let json = serde_json::to_string(&work).unwrap();
        assert_eq!(serde_json::from_str::<Work>(&json).unwrap(), work, "{json}");
    }
    let run_phases = [
        RunPhase::Active,
        RunPhase::Stopping { then: StopFor::Cancel },
        RunPhase::Stopping { then: StopFor::Resume },
        RunPhase::Stopping {
            then: StopFor::Failure { work: WorkId::job(Stage::Index, 1), failure: failure.clone() },
        },
        RunPhase::Finished,
        RunPhase::Failed { work: WorkId::Model(ModelId::Seed), failure },
        RunPhase::Cancelled,
    ];
    for phase in run_phases {
        let json = serde_json::to_string(&phase).unwrap();
        assert_eq!(serde_json::from_str::<RunPhase>(&json).unwrap(), phase, "{json}");
    }
}

fn urgent() -> Box<RunSpec> {
    let document = DEMO
        .replace("name: clipart", "name: urgent")
        .replace("  gangs:", "  priority: 5\n  gangs:");
    Box::new(RunSpec::parse(&document).unwrap())
}

#[test]
fn a_run_of_higher_priority_asks_a_gang_to_save_and_leave_and_the_gang_loses_nothing() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.commit("expert-0#1", 300);
    script.told.clear();
    script.event(Event::Applied { spec: urgent(), tars: 1 });
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", Some(320));
    script.check(&expect![[r#"
        stop clipart/expert-0#1 rank 0 on w1:0, save: true
        stop clipart/expert-0#1 rank 1 on w2:0, save: true
        start urgent/index.0#1 rank 0 on w1:0 from nothing
        inspect clipart/expert-0#1
    "#]]);
    let expert = script.work("expert-0");
    assert_eq!((expert.strikes, expert.restarts), (0, 0));
    assert_eq!(expert.committed_step(), Step(320));
}

#[test]
fn a_cordoned_node_keeps_its_gang_and_gets_no_other_and_a_drained_one_lets_it_save_and_leave() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.told.clear();
    script.cordon("n1", false);
    script.check(&expect![[""]]);
    script.cordon("n1", true);
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", None);
    script.check(&expect![[r#"
        stop clipart/expert-0#1 rank 0 on w1:0, save: true
        stop clipart/expert-0#1 rank 1 on w2:0, save: true
        inspect clipart/expert-0#1
    "#]]);
    assert_eq!(
        script.why("expert-0"),
        "needs 2 seats, 1 free; one node is cordoned or in quarantine"
    );
    script.event(Event::NodeUncordoned { node: NodeName("n1".into()) });
    assert!(matches!(script.work("expert-0").phase, Phase::Running(_)));
    let refused = Event::NodeUncordoned { node: NodeName("n9".into()) };
    let effects = step(&mut script.state, Limits::default(), script.now, refused);
    let unknown = Refusal::UnknownNode { node: NodeName("n9".into()) };
    assert_eq!(effects.refusal, Some(unknown));
}

#[test]
fn a_gang_without_a_step_for_a_minute_is_killed_and_one_that_cannot_be_heard_is_not() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.told.clear();
    for second in 1..=30 {
        script.at(second * 1_000);
        script.steps("expert-0#1", 288 + second);
    }
    // Its worker is away for a while: nothing can be heard of it.
    script.event(Event::WorkerDetached { worker: WorkerId("w2".into()) });
    script.at(32_500);
    let ranks = vec![LiveRank { fence: fence_of("expert-0#1"), rank: 1, slot: 0 }];
    script.attach("w2", 1, ranks);
    script.told.clear();
    script.at(92_000);
    script.check(&expect![[""]]);
    script.at(93_000);
    script.check(&expect![[r#"
        stop clipart/expert-0#1 rank 0 on w1:0, save: false, told where it stands
        stop clipart/expert-0#1 rank 1 on w2:0, save: false, told where it stands
    "#]]);
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", None);
    let failure = script.work("expert-0").last_failure.clone();
    assert!(matches!(failure, Some(Failure::Stalled { .. })), "{failure:?}");
    assert_eq!(script.work("expert-0").strikes, 1);
}

#[test]
fn who_speaks_for_another_workers_rank_or_for_a_gang_to_come_is_refused_without_effect() {
    let mut script = Script::trained_seed();
    script.join("w1");
    script.join("w2");
    script.told.clear();
    let before = script.state.clone();
    let liar = || WorkerId("w2".into());
    let fence = || fence_of("expert-0#1");
    script.event(Event::RankExited { worker: liar(), fence: fence(), rank: 0, outcome: done() });
    script.event(Event::RendezvousPosted { worker: liar(), fence: fence(), address: "a:1".into() });
    let checkpoint = checkpoint(ModelId::Expert(0), 1, 300);
    script.event(Event::CheckpointReported { worker: liar(), fence: fence(), checkpoint });
    let (next, outcome) = (fence_of("expert-0#2"), done());
    script.event(Event::RankExited { worker: liar(), fence: next, rank: 1, outcome });
    let progress = |done| Event::Progressed {
        worker: WorkerId("w1".into()),
        fence: fence(),
        rank: 0,
        done,
        busy_us: 0,
    };
    script.event(progress(433));
    let stranger = WorkerId("w7".into());
    script.event(Event::RankExited { worker: stranger, fence: fence(), rank: 0, outcome: done() });
    script.check(&expect![[r#"
        refuse w2 clipart/expert-0#1: that rank sits at w1:0
        refuse w2 clipart/expert-0#1: that rank sits at w1:0
        refuse w2 clipart/expert-0#1: that rank sits at w1:0
        refuse w2 clipart/expert-0#2: incarnation 1 is the newest there is
        refuse w1 clipart/expert-0#1: the model ends at step 432
        refuse w7 clipart/expert-0#1: no such worker, or it was declared lost
    "#]]);
    assert_eq!(before, script.state);
}

#[test]
fn a_run_of_thirty_thousand_jobs_is_applied_and_cancelled_in_parts_that_fit_a_transaction() {
    let mut script = Script::new();
    for index in 0..10 {
        script.attach(&format!("w{index}"), 1_000, vec![]);
    }
    let spec = Box::new(spec());
    let limits = Limits::default();
    let mut effects =
        step(&mut script.state, limits, Millis(1), Event::Applied { spec, tars: 10_000 });
    let mut parts = 1;
    while effects.more {
        effects = step(&mut script.state, limits, Millis(1), Event::Tick);
        assert!(effects.changed.len() <= MAX_CHANGED);
        parts += 1;
    }
    let running = |state: &State| {
        let works = state.runs.values().flat_map(|run| run.works.values());
        works.filter(|work| matches!(work.phase, Phase::Running(_))).count()
    };
    assert_eq!(running(&script.state), 10_000);
    assert!(parts > 3, "{parts} parts");
    assert_eq!(whole(&script.state, Millis(1)), Vec::<String>::new());
    let run = "clipart".parse().unwrap();
    let mut effects = step(&mut script.state, limits, Millis(2), Event::CancelRequested { run });
    let mut stops = effects.actions.len();
    while effects.more {
        effects = step(&mut script.state, limits, Millis(2), Event::Tick);
        assert!(effects.changed.len() <= MAX_CHANGED);
        stops += effects.actions.len();
    }
    assert_eq!((running(&script.state), stops), (0, 10_000));
    assert_eq!(whole(&script.state, Millis(2)), Vec::<String>::new());
}

#[test]
fn what_could_never_be_seated_is_refused_with_what_would_fit() {
    let mut script = Script::new();
    script.join("w1");
    let document = DEMO.replace("seed: {ranks: 2", "seed: {requires: {gpu: H100}, ranks: 2");
    let wants_gpus = RunSpec::parse(&document).unwrap();
    assert_eq!(
        admit(&script.state, &wants_gpus).unwrap_err().to_string(),
        "spec.gangs.seed.ranks: 2 seats with gpu H100 are needed and the cluster has 0; apply it with \
         --queue to wait for more workers"
    );
    let two_wide = RunSpec::parse(DEMO).unwrap();
    assert_eq!(
        admit(&script.state, &two_wide).unwrap_err().to_string(),
        "spec.gangs.seed.ranks: 2 seats are needed and the cluster has 1; 1 would fit, or apply it with \
         --queue to wait for more workers"
    );
    script.join("w2");
    assert_eq!(admit(&script.state, &two_wide), Ok(()));
}

#[test]
fn a_run_whose_last_work_ends_while_it_stops_is_finished_whatever_it_was_stopped_for() {
    for is_applied_again in [false, true] {
        let mut script = Script::trained_seed();
        let run = script.state.runs.values_mut().next().unwrap();
        for (id, work) in &mut run.works {
            if *id != WorkId::job(Stage::Publish, 0) {
                work.phase = Phase::Done;
            }
            if let WorkId::Model(model) = *id {
                work.committed = vec![checkpoint(model, 1, 432)];
            }
        }
        script.state.index = Index::of(&script.state);
        script.join("w1");
        script.event(Event::CancelRequested { run: "clipart".parse().unwrap() });
        if is_applied_again {
            script.event(Event::Applied { spec: Box::new(spec()), tars: 0 });
        }
        script.exit("publish.0#1", 0, done());
        let run = script.state.runs.values().next().unwrap();
        assert_eq!(run.head.phase, RunPhase::Finished, "applied again: {is_applied_again}");
    }
}
