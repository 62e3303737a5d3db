//! A run of ten thousand running jobs is cancelled, through both kinds of state, in transactions that
//! each fit etcd's default limits.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod cluster;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use clade_proto::v1;
use clade_proto::v1::rank_exited::Outcome;
use cluster::coordinator::Coordinator;
use cluster::etcd::{self, Etcd};
use cluster::worker::Worker;
use cluster::{document, leader, until};

const WORKERS: u32 = 20;
const SLOTS: u32 = 500;
const JOBS: u32 = WORKERS * SLOTS;

/// Jobs of the run by phase, asked for in pages.
async fn jobs(coordinator: &Coordinator) -> BTreeMap<String, u32> {
    let mut client = coordinator.client().await.unwrap();
    let (run, stage) = ("many".to_owned(), "index".to_owned());
    let mut request = v1::ListJobsRequest { run, stage, ..v1::ListJobsRequest::default() };
    let mut phases = BTreeMap::new();
    loop {
        let page = client.list_jobs(request.clone()).await.unwrap().into_inner();
        assert!(page.jobs.len() <= 200, "a page has 200 jobs unless more are asked for");
        for job in page.jobs {
            *phases.entry(job.phase).or_default() += 1;
        }
        if page.next_page_token.is_empty() {
            return phases;
        }
        request.page_token = page.next_page_token;
    }
}

fn metric(coordinator: &Coordinator, name: &str) -> u64 {
    let scraped = coordinator.probe("/metrics");
    let line = scraped.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no `{name}` in {scraped}")).parse().unwrap()
}

async fn ten_thousand_jobs_are_cancelled(folder: &Path, arguments: &[&str]) {
    let mut first = Coordinator::start(folder, arguments);
    leader(std::slice::from_ref(&first)).await;
    let urls = [first.url.clone()];
    let mut fleet = Vec::new();
    for nth in 0..WORKERS {
        let worker = Worker::new(&format!("w{nth:02}"), SLOTS);
        let session = worker.attach(&urls).await;
        fleet.push((worker, session));
    }
    let began = Instant::now();
    first.apply(document(folder, "many", JOBS as usize)).await.unwrap();
    for (worker, session) in &mut fleet {
        worker.obey(session, |worker, _| worker.ranks.len() == SLOTS as usize).await.unwrap();
    }
    eprintln!("{JOBS} jobs run {:?} after the run was applied", began.elapsed());
    assert_eq!(jobs(&first).await, [("running".to_owned(), JOBS)].into());

    let began = Instant::now();
    first.cancel("many").await.unwrap();
    for (worker, session) in &mut fleet {
        worker.obey(session, |worker, _| worker.to_stop.len() == SLOTS as usize).await.unwrap();
    }
    eprintln!("all of them are told to stop after {:?}", began.elapsed());
    for (worker, session) in &mut fleet {
        for work in worker.to_stop.clone() {
            worker.exit(session, &work, Outcome::Stopped(v1::Stopped {})).await;
        }
        let last = u64::from(SLOTS);
        let is_last = |_: &Worker, order: &v1::session_response::Order| matches!(order, v1::session_response::Order::Acknowledge(it) if it.sequence == last);
        worker.obey(session, is_last).await.unwrap();
    }
    let phase = async |coordinator: &Coordinator| {
        let status = coordinator.status().await.ok()?;
        Some(status.runs.first()?.phase.clone())
    };
    until("the run is cancelled", async || (phase(&first).await? == "cancelled").then_some(()))
        .await;
    eprintln!("the run is cancelled after {:?}", began.elapsed());

    let all = metric(&first, "clade_state_transaction_keys_count");
    let small = metric(&first, "clade_state_transaction_keys_bucket{le=\"100.0\"}");
    eprintln!("{all} transactions, none of more than 100 keys");
    assert_eq!(small, all);
    // Each of the 313 chunks of jobs changes when they start, are stopped, and have left.
    assert!(all >= 3 * u64::from(JOBS.div_ceil(32).div_ceil(100)), "{all}");

    // What was saved is the same.
    drop(fleet);
    first.kill();
    let second = Coordinator::start(folder, arguments);
    leader(std::slice::from_ref(&second)).await;
    assert_eq!(phase(&second).await.unwrap(), "cancelled");
    assert_eq!(jobs(&second).await, [("waiting".to_owned(), JOBS)].into());
    let status = second.status().await.unwrap();
    assert!(status.runs[0].parts.iter().all(|part| part.ranks.is_empty()));
    assert!(status.workers.iter().all(|worker| worker.busy == 0), "{:?}", status.workers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_ten_thousand_jobs_is_cancelled_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().join("state").display());
    ten_thousand_jobs_are_cancelled(folder.path(), &[&state]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_ten_thousand_jobs_is_cancelled_in_etcd() {
    if !etcd::is_here() {
        return;
    }
    let (etcd, folder) = (Etcd::start(1), tempfile::tempdir().unwrap());
    let place = format!("--etcd={}", etcd.urls()[0]);
    ten_thousand_jobs_are_cancelled(folder.path(), &[&place]).await;
}
