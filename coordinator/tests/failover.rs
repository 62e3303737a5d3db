//! Coordinators, etcd members and their network die; runs go on where they were.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod cluster;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clade_access::client::{Cluster, Credentials, Patience};
use clade_proto::v1;
use clade_proto::v1::run_service_client::RunServiceClient;
use clade_proto::v1::session_response::Order;
use cluster::coordinator::Coordinator;
use cluster::etcd::{self, Etcd};
use cluster::worker::{Session, Worker, is_over};
use cluster::{document, leader, until};
use nix::sys::signal::Signal;
use tonic::Code;

/// How long all of etcd is down; `make test-outages` makes it 60.
fn outage() -> Duration {
    let seconds = std::env::var("CLADE_TEST_OUTAGE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(8, |seconds| seconds.parse().unwrap()))
}

fn urls(coordinators: &[Coordinator]) -> Vec<String> {
    coordinators.iter().map(|it| it.url.clone()).collect()
}

/// How many jobs of the index stage are done.
fn indexed(status: &v1::GetStatusResponse) -> u64 {
    let part = status.runs.first().and_then(|run| run.parts.iter().find(|it| it.name == "index"));
    part.map_or(0, |part| part.done)
}

/// Who sits where, as the state has it.
fn seats(status: &v1::GetStatusResponse) -> BTreeSet<(String, String, u32)> {
    let parts = status.runs.iter().flat_map(|run| &run.parts);
    let ranks = parts.flat_map(|part| &part.ranks);
    ranks.map(|rank| (rank.work.clone(), rank.worker.clone(), rank.slot)).collect()
}

/// A run of four tars under way on one worker of two slots, one of its jobs done and acknowledged.
async fn under_way(coordinators: &[Coordinator], folder: &std::path::Path) -> (Worker, Session) {
    let first = leader(coordinators).await;
    coordinators[first].apply(document(folder, "clipart", 4)).await.unwrap();
    let mut worker = Worker::new("w1", 2);
    let mut session = worker.attach(&urls(coordinators)).await;
    worker.obey(&mut session, |worker, _| worker.ranks.len() == 2).await.unwrap();
    let done = worker.finish(&session, "index.0").await;
    worker.deliver(&mut session, &urls(coordinators), done).await;
    if worker.ranks.len() < 2 {
        worker.obey(&mut session, |worker, _| worker.ranks.len() == 2).await.unwrap();
    }
    (worker, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_within_ten_seconds_and_restarts_nothing() {
    if !etcd::is_here() {
        return;
    }
    let etcd = Etcd::start(3);
    let folder = tempfile::tempdir().unwrap();
    let mut coordinators = Coordinator::three(folder.path(), &etcd.urls());
    let first = leader(&coordinators).await;
    let (mut worker, mut session) = under_way(&coordinators, folder.path()).await;
    assert_eq!((session.url.as_str(), session.term), (coordinators[first].url.as_str(), 1));
    let before = coordinators[first].status().await.unwrap();

    for standby in (0..3).filter(|at| *at != first) {
        // A standby answers from its mirror, and says whom to ask for more.
        let mirrored = until("the standby has seen the state", async || {
            let status = coordinators[standby].status().await.ok()?;
            (indexed(&status) == 1 && seats(&status) == seats(&before)).then_some(status)
        })
        .await;
        assert_eq!(mirrored.term, 1);
        assert_eq!((mirrored.is_mirror, &mirrored.leader), (true, &coordinators[first].url));
        // A client that was given the standby alone has the leader's own word.
        let client =
            Cluster::new(&[coordinators[standby].url.clone()], Credentials::none()).unwrap();
        let asked = client.call(Patience::Once, |link| async {
            RunServiceClient::new(link).get_status(v1::GetStatusRequest::default()).await
        });
        assert!(!asked.await.unwrap().is_mirror);
        let refusal = coordinators[standby].cancel("clipart").await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unavailable);
        assert_eq!(refusal.metadata().get("clade-leader").unwrap(), &coordinators[first].url);
        let leader = &coordinators[first].url;
        assert_eq!(refusal.message(), format!("this coordinator is a standby; {leader} leads"));
        let refusal = worker.try_attach(&coordinators[standby].url).await.err().unwrap();
        assert_eq!(refusal.metadata().get("clade-leader").unwrap(), leader);
    }

    // What lies in the run's store is told by all of them.
    let log = folder.path().join("store/runs/clipart/logs/index.0/try-1.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(log, "what it wrote").unwrap();
    for coordinator in &coordinators {
        let mut client = coordinator.client().await.unwrap();
        let request = v1::GetLogsRequest { run: "clipart".to_owned(), ..Default::default() };
        let logs = client.get_logs(request).await.unwrap().into_inner().logs;
        assert_eq!((logs.len(), &*logs[0].text), (1, "what it wrote"));
    }

    let killed = Instant::now();
    coordinators[first].kill();
    let ended = worker.obey(&mut session, |_, _| false).await.unwrap_err();
    assert!(is_over(&ended), "{ended}");
    let mut session = worker.attach(&urls(&coordinators)).await;
    let took = killed.elapsed();
    eprintln!("leader killed -> the worker is welcomed by the next one: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(session.term, 2);
    let second = leader(&coordinators).await;
    assert_ne!(second, first);
    let after = coordinators[second].status().await.unwrap();
    assert_eq!((indexed(&after), seats(&after)), (1, seats(&before)));

    // What it reports now is taken by the new leader, and nothing was stopped on the way.
    let done = worker.finish(&session, "index.1").await;
    worker.deliver(&mut session, &urls(&coordinators), done).await;
    assert_eq!(indexed(&coordinators[second].status().await.unwrap()), 2);
    assert_eq!(worker.stops, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_and_a_killed_etcd_member_change_nothing_for_the_workers() {
    if !etcd::is_here() {
        return;
    }
    let mut etcd = Etcd::start(3);
    let folder = tempfile::tempdir().unwrap();
    let mut coordinators = Coordinator::three(folder.path(), &etcd.urls());
    let first = leader(&coordinators).await;
    let (mut worker, mut session) = under_way(&coordinators, folder.path()).await;
    let urls = urls(&coordinators);

    let stalled = etcd.leader();
    etcd.signal(stalled, Signal::SIGSTOP);
    let began = Instant::now();
    let done = worker.finish(&session, "index.1").await;
    worker.deliver(&mut session, &urls, done).await;
    eprintln!("etcd's leader stalls -> a report is acknowledged after {:?}", began.elapsed());
    let rest = Duration::from_secs(8).saturating_sub(began.elapsed());
    tokio::time::sleep(rest).await;
    let status = coordinators[first].status().await.unwrap();
    assert_eq!((status.term, indexed(&status)), (1, 2), "the lead outlived the stall");
    // Etcd before 3.4.28 may revoke every lease when a stalled leader wakes. That costs a lead, and no gang.
    etcd.signal(stalled, Signal::SIGCONT);
    etcd.wait_until_healthy();

    let killed = etcd.leader();
    etcd.kill(killed);
    let began = Instant::now();
    let next = worker.ranks.keys().next().unwrap().clone();
    let done = worker.finish(&session, &next).await;
    worker.deliver(&mut session, &urls, done).await;
    eprintln!("etcd's leader killed -> a report is acknowledged after {:?}", began.elapsed());
    let leads = leader(&coordinators).await;
    let status = coordinators[leads].status().await.unwrap();
    eprintln!("the lead changed hands {} times", status.term - 1);
    assert_eq!(indexed(&status), 3);
    assert_eq!(worker.stops, 0);
    assert!(coordinators.iter_mut().all(Coordinator::is_alive));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_all_of_etcd_was_down_the_state_is_right_and_no_coordinator_has_ended() {
    if !etcd::is_here() {
        return;
    }
    let mut etcd = Etcd::start(3);
    let folder = tempfile::tempdir().unwrap();
    let mut coordinators = Coordinator::three(folder.path(), &etcd.urls());
    let (mut worker, mut session) = under_way(&coordinators, folder.path()).await;
    let first = leader(&coordinators).await;
    let before = coordinators[first].status().await.unwrap();

    (0..3).for_each(|at| etcd.kill(at));
    let down = Instant::now();
    // Its report is not acknowledged: the leader cannot save it and steps down.
    let done = worker.finish(&session, "index.1").await;
    let ended = worker.obey(&mut session, |_, order| matches!(order, Order::Acknowledge(_))).await;
    let ended = ended.unwrap_err();
    eprintln!("etcd is gone -> the leader let its workers go after {:?}: {ended}", down.elapsed());
    assert_eq!(ended.code(), Code::Unavailable);
    // Standbys answer from what they saw last, until it is too old to be shown.
    for (at, coordinator) in coordinators.iter().enumerate().filter(|(at, _)| *at != first) {
        let refusal = until("a standby says how old its copy is", async || {
            match coordinator.status().await {
                Ok(status) => {
                    assert_eq!(indexed(&status), 1);
                    None
                }
                Err(refusal) => Some(refusal),
            }
        })
        .await;
        eprintln!("coordinator {at} after {:?}: {refusal}", down.elapsed());
        assert!(refusal.message().contains("copy of the state is 1"), "{refusal}");
        assert!(down.elapsed() > Duration::from_secs(7));
        let ready = coordinator.probe("/readyz");
        assert!(ready.starts_with("HTTP/1.0 503 ") && ready.contains(" old"), "{ready}");
        assert!(coordinator.probe("/healthz").starts_with("HTTP/1.0 200 "));
    }
    tokio::time::sleep(outage().saturating_sub(down.elapsed())).await;
    assert!(coordinators.iter_mut().all(Coordinator::is_alive));
    (0..3).for_each(|at| etcd.restart(at));
    let up = Instant::now();
    let mut session = worker.attach(&urls(&coordinators)).await;
    eprintln!("etcd is back -> the worker is welcomed after {:?}", up.elapsed());
    assert!(session.term > 1);
    let leads = leader(&coordinators).await;
    let after = coordinators[leads].status().await.unwrap();
    assert_eq!(indexed(&after), 1, "what was never acknowledged was never decided");
    assert!(seats(&after).is_superset(&seats(&before)), "{after:#?}");
    session.say(done.clone()).await;
    worker.deliver(&mut session, &urls(&coordinators), done).await;
    assert_eq!(indexed(&coordinators[leads].status().await.unwrap()), 2);
    assert_eq!(worker.stops, 0);
    assert!(coordinators.iter_mut().all(Coordinator::is_alive));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_is_said_and_survived_and_compacting_it_hurts_nobody() {
    if !etcd::is_here() {
        return;
    }
    let etcd = Etcd::start_with(1, None, &["--quota-backend-bytes=8000000"]);
    let folder = tempfile::tempdir().unwrap();
    let mut coordinators = Coordinator::three(folder.path(), &etcd.urls());
    let (mut worker, mut session) = under_way(&coordinators, folder.path()).await;
    let first = leader(&coordinators).await;
    // Somebody else fills it.
    let junk = "x".repeat(100_000);
    until("etcd raises its alarm", async || {
        etcd.try_ctl(&["put", "/junk", &junk]).is_err().then_some(())
    })
    .await;
    let done = worker.finish(&session, "index.1").await;
    until("the leader says that etcd is full", async || {
        coordinators[first].log().contains("database space exceeded").then_some(())
    })
    .await;
    // It is not asked any more, and not killed: nobody could take its place.
    let waited = |ready: &str| {
        let rest = ready.split("waits for the state store for ").nth(1)?;
        rest.split(['.', 's']).next()?.parse::<u64>().ok()
    };
    until("the leader has waited longer than a loop may stand still", async || {
        let ready = coordinators[first].probe("/readyz");
        waited(&ready).filter(|seconds| *seconds >= 12)
    })
    .await;
    let healthy = coordinators[first].probe("/healthz");
    assert!(healthy.starts_with("HTTP/1.0 200 "), "{healthy}");
    let said = etcd.ctl(&["get", "/junk", "--keys-only", "-w", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    etcd.ctl(&["compact", "--physical", &said["header"]["revision"].to_string()]);
    etcd.ctl(&["defrag"]);
    etcd.ctl(&["alarm", "disarm"]);
    // The report that waited is saved and acknowledged, on the same stream.
    worker.deliver(&mut session, &urls(&coordinators), done).await;
    assert_eq!(session.term, 1);
    for coordinator in &coordinators {
        until("everybody sees it", async || {
            let status = coordinator.status().await.ok()?;
            (indexed(&status) == 2).then_some(())
        })
        .await;
    }
    assert!(coordinators.iter_mut().all(Coordinator::is_alive));
}
