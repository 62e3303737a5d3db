//! What an agent promises, tried on the real program over a real stream.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use clade_core::job::{Failure, Outcome};
use clade_proto::v1::session_request::Report;
use clade_proto::v1::session_response::Order;
use clade_proto::v1::{Fence, RankExited, StartRank, StopRank, Superseded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::desk::{Desk, Session};
use crate::lab::{Lab, WORKER};

pub(crate) const TRAINING: &str = "{globalBatch: 8, microBatch: 4, seedSteps: 4, expertSteps: 2, \
                        learningRate: {peak: 1e-3}}";

/// An agent that is killed when the test ends.
pub(crate) struct Agent(pub(crate) Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _: Result<_, _> = self.0.kill();
        let _: Result<_, _> = self.0.wait();
    }
}

impl Agent {
    fn start(desk: &Desk, state: &Path) -> Self {
        Self::start_with(desk, state, &[])
    }

    fn start_with(desk: &Desk, state: &Path, more: &[&str]) -> Self {
        Self::start_at(&desk.url(), state, more)
    }

    /// With one or several coordinators.
    pub(crate) fn start_at(coordinators: &str, state: &Path, more: &[&str]) -> Self {
        let child = Command::new(WORKER)
            .args(["agent", "--name", "w0", "--slots", "2", "--exit-with-stdin"])
            .args(more)
            .args(["--coordinator", coordinators, "--state"])
            .arg(state)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

pub(crate) fn fence(work: &str, incarnation: u64) -> Fence {
    Fence { run: "lab".to_owned(), work: work.to_owned(), incarnation }
}

pub(crate) fn start(lab: &Lab, fence: &Fence, ranks: u32) -> Order {
    Order::StartRank(StartRank {
        fence: Some(fence.clone()),
        slot: 0,
        rank: 0,
        ranks,
        store: lab.store.uri().to_owned(),
        resume: None,
        fallbacks: vec![],
        models: vec![],
        rendezvous: None,
        grace_ms: 20_000,
        between_failures_ms: None,
    })
}

pub(crate) fn stop(fence: &Fence, save: bool) -> Order {
    Order::StopRank(StopRank { fence: Some(fence.clone()), slot: 0, rank: 0, save, tell: false })
}

/// The next exit. Agents that leave withdraw their slots before.
pub(crate) async fn exit(session: &mut Session) -> (u64, RankExited, Outcome) {
    loop {
        match session.matter().await {
            (sequence, Report::RankExited(exited)) => {
                let outcome = exited.to_core().unwrap();
                return (sequence, exited, outcome);
            }
            (sequence, Report::DeviceWithdrawn(_)) => session.acknowledge(sequence).await,
            other => panic!("{other:?} came where an exit was due"),
        }
    }
}

/// Starts rank 0 of a gang whose other rank never comes, and waits until it listens.
///
/// Its process id, read from the hello of a second stream.
pub(crate) async fn waiting_rank(
    lab: &Lab,
    desk: &Desk,
    mut session: Session,
    fence: &Fence,
) -> (Session, i32) {
    session.order(start(lab, fence, 2)).await;
    let (sequence, report) = session.matter().await;
    let Report::RendezvousPosted(posted) = report else { panic!("{report:?}") };
    assert_eq!(posted.fence.as_ref(), Some(fence));
    session.acknowledge(sequence).await;
    let term = session.term;
    drop(session);
    let (session, hello) = desk.guest(term).await;
    assert_eq!(hello.ranks.len(), 1, "{hello:?}");
    (session, hello.ranks[0].pid.try_into().unwrap())
}

pub(crate) fn is_alive(pid: i32) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_is_reported_until_it_is_acknowledged_and_a_repeated_order_starts_nothing() {
    let lab = Lab::new(6, TRAINING).await;
    let desk = Desk::open().await;
    let _agent = Agent::start(&desk, &lab.path("w0"));
    let (mut session, hello) = desk.guest(1).await;
    assert!(hello.worker.starts_with("w0-"), "{hello:?}");
    assert_eq!((hello.slots, hello.ranks.len()), (2, 0));

    let index = fence("index.0", 1);
    session.order(start(&lab, &index, 1)).await;
    session.order(start(&lab, &index, 1)).await;
    let (first, exited, outcome) = exit(&mut session).await;
    assert_eq!(exited.fence, Some(index.clone()));
    let Outcome::Done { counts } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(counts.get("pairs"), Some(&6), "{counts:?}");

    // Not acknowledged: the next stream hears it again, under the same number.
    drop(session);
    let (mut session, again) = desk.guest(1).await;
    assert_eq!(again.worker, hello.worker);
    assert_eq!(exit(&mut session).await, (first, exited, outcome.clone()));
    session.acknowledge(first).await;

    // An order that is repeated after the end is answered with the end.
    session.order(start(&lab, &index, 1)).await;
    let (second, _, repeated) = exit(&mut session).await;
    assert!(second > first);
    assert_eq!(repeated, outcome);
    session.acknowledge(second).await;

    // Now nothing is owed: what comes next is what is asked next.
    drop(session);
    let (mut session, _) = desk.guest(1).await;
    let unknown = fence("index.1", 1);
    session.order(stop(&unknown, true)).await;
    let (_, exited, outcome) = exit(&mut session).await;
    assert_eq!((exited.fence, outcome), (Some(unknown), Outcome::Stopped));

    // The log is in the store.
    let logs = lab.store.list("runs/lab/logs/index.0").await.unwrap();
    assert_eq!(logs.len(), 1, "{logs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_orders_are_refused_also_by_the_next_agent() {
    let lab = Lab::new(6, TRAINING).await;
    let desk = Desk::open().await;
    let state = lab.path("w0");
    let agent = Agent::start(&desk, &state);
    let (mut session, _) = desk.guest(5).await;
    session.order(start(&lab, &fence("index.0", 3), 1)).await;
    let (sequence, _, outcome) = exit(&mut session).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    session.acknowledge(sequence).await;
    drop(agent);

    let _agent = Agent::start(&desk, &state);
    // A deposed coordinator is hung up on.
    let mut deposed = desk.caller().await;
    deposed.term = 4;
    deposed.hello().await;
    deposed.order(start(&lab, &fence("index.1", 1), 1)).await;
    assert!(deposed.next().await.is_none(), "the agent obeyed a deposed coordinator");

    let (mut session, _) = desk.guest(5).await;
    session.order(start(&lab, &fence("index.0", 2), 1)).await;
    let (_, _, outcome) = exit(&mut session).await;
    let Outcome::Failed(Failure::Launch { message, .. }) = &outcome else { panic!("{outcome:?}") };
    assert!(message.contains("incarnation 2 is below 3"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rank_is_reported_as_crashed_and_its_slot_is_free() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let _agent = Agent::start(&desk, &lab.path("w0"));
    let (session, _) = desk.guest(1).await;
    let (mut session, pid) = waiting_rank(&lab, &desk, session, &fence("seed", 1)).await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let (_, exited, outcome) = exit(&mut session).await;
    assert_eq!((exited.slot, exited.rank), (0, 0));
    let Outcome::Failed(Failure::Crashed { message, .. }) = &outcome else { panic!("{outcome:?}") };
    assert!(message.contains("SIGKILL"), "{message}");

    // The slot takes the next gang, which stops when asked.
    let next = fence("seed", 2);
    let (mut session, _) = waiting_rank(&lab, &desk, session, &next).await;
    // The first gang's exit was not acknowledged.
    exit(&mut session).await;
    session.order(stop(&next, true)).await;
    let (_, exited, outcome) = exit(&mut session).await;
    assert_eq!((exited.fence, outcome), (Some(next), Outcome::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_gives_no_sign_of_life_is_killed_and_reported_as_stalled() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let _agent = Agent::start_with(&desk, &lab.path("w0"), &["--silent-after", "4s"]);
    let (session, _) = desk.guest(1).await;
    let (mut session, pid) = waiting_rank(&lab, &desk, session, &fence("seed", 1)).await;
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let (_, _, outcome) = exit(&mut session).await;
    let Outcome::Failed(Failure::Stalled { seconds, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(seconds >= 4, "{seconds}");
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_hangs_tells_where_it_stands_before_it_is_killed() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let state = lab.path("w0");
    let _agent = Agent::start(&desk, &state);
    let (session, _) = desk.guest(1).await;
    let fence = fence("seed", 1);
    let (mut session, pid) = waiting_rank(&lab, &desk, session, &fence).await;
    let hangs = StopRank { fence: Some(fence.clone()), slot: 0, rank: 0, save: false, tell: true };
    session.order(Order::StopRank(hangs)).await;
    let (_, _, outcome) = exit(&mut session).await;
    assert_eq!(outcome, Outcome::Stopped);
    assert!(!is_alive(pid));
    let log = state.join(format!("logs/{}/seed/gang-1/rank-0.log", lab.run));
    let log = std::fs::read_to_string(log).unwrap();
    for words in ["no exchange with other ranks", "\"work\"", "collective/meet.rs", "--- end"] {
        assert!(log.contains(words), "no {words} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_dies_with_its_agent_and_the_next_agent_offers_its_slot() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let state = lab.path("w0");
    let agent = Agent::start(&desk, &state);
    let (session, first) = desk.guest(1).await;
    let (_session, pid) = waiting_rank(&lab, &desk, session, &fence("seed", 1)).await;
    assert!(is_alive(pid));
    agent.signal(Signal::SIGKILL);
    drop(agent);
    let _agent = Agent::start(&desk, &state);
    // It says hello only once the slots are free, so the rank is gone now.
    let (_, second) = desk.guest(1).await;
    assert!(!is_alive(pid), "an orphan lives on");
    assert_ne!(first.worker, second.worker);
    assert!(second.ranks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_worker_kills_its_ranks_and_joins_as_another() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let _agent = Agent::start(&desk, &lab.path("w0"));
    let (session, first) = desk.guest(1).await;
    let (session, pid) = waiting_rank(&lab, &desk, session, &fence("seed", 1)).await;
    session.order(Order::Superseded(Superseded {})).await;
    let (_, second) = desk.guest(1).await;
    assert!(!is_alive(pid));
    assert_ne!(first.worker, second.worker);
    assert!(second.ranks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_supervisor_is_gone_stops_its_ranks_and_says_goodbye() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let mut agent = Agent::start(&desk, &lab.path("w0"));
    let (session, _) = desk.guest(1).await;
    let (mut session, pid) = waiting_rank(&lab, &desk, session, &fence("seed", 1)).await;
    drop(agent.0.stdin.take());
    // Before a seat is free, so that no other rank is sent there.
    for slot in 0..2 {
        let (sequence, report) = session.matter().await;
        let Report::DeviceWithdrawn(withdrawn) = report else { panic!("{report:?}") };
        assert_eq!(withdrawn.slot, slot);
        assert!(withdrawn.reason.contains("leaving"), "{withdrawn:?}");
        session.acknowledge(sequence).await;
    }
    let (sequence, _, outcome) = exit(&mut session).await;
    assert_eq!(outcome, Outcome::Stopped);
    session.acknowledge(sequence).await;
    let (_, last) = session.matter().await;
    assert!(matches!(last, Report::Goodbye(_)), "{last:?}");
    drop(session);
    assert!(agent.0.wait().unwrap().success());
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn rank_0_listens_where_the_agent_was_told_that_others_reach_it() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    // All of 127/8 is this machine.
    let _agent = Agent::start_with(&desk, &lab.path("w0"), &["--gang-address", "127.0.0.9"]);
    let (mut session, _) = desk.guest(1).await;
    session.order(start(&lab, &fence("seed", 1), 2)).await;
    let (_, report) = session.matter().await;
    let Report::RendezvousPosted(posted) = report else { panic!("{report:?}") };
    assert!(posted.address.starts_with("127.0.0.9:"), "{posted:?}");
    assert!(!posted.address.ends_with(":0"), "{posted:?}");
}
