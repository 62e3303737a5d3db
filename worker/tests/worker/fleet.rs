//! What an agent promises to a cluster: it finds the leader, withdraws ill devices, and gives way
//! when it is refused.

use std::io::Read as _;
use std::process::{Command, Stdio};

use clade_core::job::{Failure, Outcome};
use clade_proto::v1::session_request::Report;
use clade_proto::v1::session_response::Order;
use clade_proto::v1::{Hello, RefusalReason, ShareRendezvous, StartRank};

use crate::agent::{Agent, TRAINING, exit, fence, is_alive, start, stop, waiting_rank};
use crate::desk::{Desk, Session};
use crate::lab::{Lab, WORKER};

fn pids(hello: &Hello) -> Vec<u32> {
    hello.ranks.iter().map(|rank| rank.pid).collect()
}

/// The same order for another rank in another slot.
fn moved(order: Order, rank: u32, slot: u32) -> Order {
    let Order::StartRank(start) = order else { panic!("{order:?} starts no rank") };
    Order::StartRank(StartRank { rank, slot, ..start })
}

/// Asks for the end of a rank that never was: whatever was said before has been heard by then.
async fn nothing_else_is_said(session: &mut Session, incarnation: u64) {
    let unknown = fence("index.1", incarnation);
    session.order(stop(&unknown, true)).await;
    let (sequence, exited, _) = exit(session).await;
    assert_eq!(exited.fence, Some(unknown));
    session.acknowledge(sequence).await;
}

/// Runs an agent to its end; whether it went well, and what it said.
async fn end_of(agent: &mut Agent) -> (bool, String) {
    let mut stderr = agent.0.stderr.take().expect("a piped stderr");
    let said = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        stderr.read_to_string(&mut said).map(|_| said)
    });
    let said = said.await.unwrap().unwrap();
    (agent.0.wait().unwrap().success(), said)
}

fn audible(desk: &Desk, state: &std::path::Path) -> Agent {
    let mut command = Command::new(WORKER);
    command.args(["agent", "--name", "w0", "--exit-with-stdin", "--coordinator", &desk.url()]);
    command.arg("--state").arg(state).stdin(Stdio::piped()).stderr(Stdio::piped());
    Agent(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_where_it_is_and_what_it_has() {
    let lab = Lab::new(6, TRAINING).await;
    let desk = Desk::open().await;
    let place = ["--node", "n1", "--domain", "rack-7", "--label", "zone=a", "--label", "gpu="];
    let _agent =
        Agent::start_at(&desk.url(), &lab.path("w0"), &[&place[..], &["--device", "cpu"]].concat());
    let (_, hello) = desk.guest(1).await;
    assert_eq!(
        (hello.protocol, &*hello.node, &*hello.domain),
        (clade_proto::PROTOCOL, "n1", "rack-7")
    );
    let labels =
        [("zone", "a"), ("gpu", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(hello.labels, labels.into());
    assert!(hello.secret().is_ok());
    let kinds: Vec<_> = hello.devices.iter().map(|it| (it.slot, it.kind.as_str())).collect();
    assert_eq!(kinds, [(0, "cpu"), (1, "cpu")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_turns_to_another_coordinator_and_its_rank_does_not_notice() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let (first, second) = (Desk::open().await, Desk::open().await);
    let both = format!("{},{}", first.url(), second.url());
    let _agent = Agent::start_at(&both, &lab.path("w0"), &[]);
    let (mut session, before) = first.guest(1).await;
    session.order(start(&lab, &fence("seed", 1), 2)).await;
    let (_, posted) = session.matter().await;
    assert!(matches!(posted, Report::RendezvousPosted(_)), "{posted:?}");

    // The leader dies, and nobody listens at its address any more.
    drop((session, first));
    let (mut session, after) = second.guest(2).await;
    assert_eq!((&after.worker, &after.secret), (&before.worker, &before.secret));
    let [pid] = pids(&after)[..] else { panic!("{after:?}") };
    // What the first did not acknowledge, the second hears.
    assert_eq!(session.matter().await.1, posted);

    // The second hangs up, the first is still away: the second again.
    drop(session);
    let (_session, again) = second.guest(2).await;
    assert_eq!(pids(&again), [pid]);
    assert!(is_alive(pid.try_into().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_to_whom_a_standby_calls_the_leader() {
    let lab = Lab::new(6, TRAINING).await;
    let leader = Desk::open().await;
    let standby = leader.standby().await;
    let _agent = Agent::start_at(&standby.url(), &lab.path("w0"), &[]);
    let (_, hello) = leader.guest(1).await;
    assert!(hello.worker.starts_with("w0-"), "{hello:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ill_device_is_withdrawn_once_and_takes_no_rank() {
    let lab = Lab::new(6, TRAINING).await;
    let desk = Desk::open().await;
    let faults = lab.path("faults");
    let drill = ["--device-faults", faults.to_str().unwrap()];
    let agent = Agent::start_at(&desk.url(), &lab.path("w0"), &drill);
    let (mut session, hello) = desk.guest(1).await;
    assert!(hello.devices.iter().all(|device| device.withdrawn.is_empty()), "{hello:?}");

    let fresh = lab.path("faults.new");
    std::fs::write(&fresh, "1 XID 79: fell off the bus\n7 no such slot\n").unwrap();
    std::fs::rename(&fresh, &faults).unwrap();
    let (sequence, report) = session.matter().await;
    let Report::DeviceWithdrawn(withdrawn) = report else { panic!("{report:?}") };
    assert_eq!((withdrawn.slot, &*withdrawn.reason), (1, "XID 79: fell off the bus"));
    session.acknowledge(sequence).await;

    session.order(moved(start(&lab, &fence("index.0", 1), 1), 0, 1)).await;
    let (sequence, _, outcome) = exit(&mut session).await;
    let Outcome::Failed(Failure::Launch { message, .. }) = &outcome else { panic!("{outcome:?}") };
    assert!(message.contains("slot 1 is withdrawn: XID 79"), "{message}");
    session.acknowledge(sequence).await;
    // The other slot is not to blame.
    session.order(start(&lab, &fence("index.0", 2), 1)).await;
    let (sequence, _, outcome) = exit(&mut session).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    session.acknowledge(sequence).await;

    // Mended or not, it stays withdrawn, and only Hello says so again.
    std::fs::remove_file(&faults).unwrap();
    drop(session);
    let (mut session, hello) = desk.guest(1).await;
    let said: Vec<_> = hello.devices.iter().map(|device| device.withdrawn.as_str()).collect();
    assert_eq!(said, ["", "XID 79: fell off the bus"]);
    nothing_else_is_said(&mut session, 1).await;
    drop((session, agent));

    // The next agent looks anew, before it says hello.
    std::fs::write(&faults, "0 still ill\n").unwrap();
    let _agent = Agent::start_at(&desk.url(), &lab.path("w0"), &drill);
    let (mut session, hello) = desk.guest(1).await;
    let said: Vec<_> = hello.devices.iter().map(|device| device.withdrawn.as_str()).collect();
    assert_eq!(said, ["still ill", ""]);
    nothing_else_is_said(&mut session, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_is_refused_is_killed_and_no_other() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let _agent = Agent::start_at(&desk.url(), &lab.path("w0"), &[]);
    let (session, _) = desk.guest(1).await;
    let seed = fence("seed", 2);
    let (mut session, pid) = waiting_rank(&lab, &desk, session, &seed).await;

    // Another incarnation, and reasons that blame no rank.
    session.refuse(Some(fence("seed", 1)), RefusalReason::Superseded).await;
    session.refuse(Some(seed.clone()), RefusalReason::BeyondDue).await;
    session.refuse(Some(seed.clone()), RefusalReason::Flood).await;
    nothing_else_is_said(&mut session, 1).await;
    assert!(is_alive(pid));

    session.refuse(Some(seed.clone()), RefusalReason::NotSeated).await;
    let (_, exited, outcome) = exit(&mut session).await;
    assert_eq!((exited.fence, outcome), (Some(seed), Outcome::Stopped));
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_protocol_ends_and_says_what_to_do() {
    let lab = Lab::new(6, TRAINING).await;
    let desk = Desk::open().await;
    let mut agent = audible(&desk, &lab.path("w0"));
    let mut session = desk.caller().await;
    session.hello().await;
    session.refuse(None, RefusalReason::Protocol).await;
    let (went_well, said) = end_of(&mut agent).await;
    assert!(!went_well, "{said}");
    let version =
        format!("version {} of the protocol (the test says so): install", clade_proto::PROTOCOL);
    assert!(said.contains(&version), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_id_is_taken_stops_its_ranks_and_ends() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let mut agent = audible(&desk, &lab.path("w0"));
    let (session, _) = desk.guest(1).await;
    let (mut session, pid) = waiting_rank(&lab, &desk, session, &fence("seed", 1)).await;
    session.refuse(None, RefusalReason::WorkerChanged).await;
    let (sequence, _, outcome) = exit(&mut session).await;
    assert_eq!(outcome, Outcome::Stopped);
    session.acknowledge(sequence).await;
    let (went_well, said) = end_of(&mut agent).await;
    assert!(!went_well && said.contains("start it again"), "{said}");
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rank_tells_its_own_time_per_step_and_only_the_first_the_loss() {
    let lab = Lab::new(6, TRAINING).await;
    lab.make_catalogue();
    let desk = Desk::open().await;
    let _agent = Agent::start_at(&desk.url(), &lab.path("w0"), &[]);
    let (mut session, _) = desk.guest(1).await;
    let seed = fence("seed", 1);
    for rank in 0..2 {
        session.order(moved(start(&lab, &seed, 2), rank, rank)).await;
    }
    let mut last = [None, None];
    let mut ends = 0;
    while ends < 2 {
        let (sequence, report) = session.next().await.expect("the stream has ended");
        match report {
            Report::RendezvousPosted(posted) => {
                let (fence, address) = (posted.fence, posted.address);
                session.order(Order::ShareRendezvous(ShareRendezvous { fence, address })).await;
            }
            Report::Progress(progress) => {
                let rank = usize::try_from(progress.rank).unwrap();
                last[rank] = Some(progress);
            }
            Report::RankExited(exited) => {
                let outcome = exited.to_core().unwrap();
                assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
                ends += 1;
            }
            Report::CheckpointWritten(_) | Report::Heartbeat(_) => (),
            other @ (Report::Hello(_) | Report::Goodbye(_) | Report::DeviceWithdrawn(_)) => {
                panic!("{other:?}")
            }
        }
        if sequence > 0 {
            session.acknowledge(sequence).await;
        }
    }
    let [first, second] = last.map(|progress| progress.expect("both ranks tell"));
    assert_eq!((first.done, second.done), (4, 4));
    assert!(first.loss > 0.0 && second.loss == 0.0, "{first:?} {second:?}");
    assert!(first.busy_ms > 0.0 && second.busy_ms > 0.0, "{first:?} {second:?}");
    assert!(first.pid > 0 && second.pid > 0 && first.pid != second.pid);
}
