//! What a coordinator refuses: places that are not its own, and callers that say too much.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod cluster;

use std::str::FromStr as _;

use clade_core::ids::{Digest, Incarnation, ModelId, RunName, Step};
use clade_proto::v1;
use clade_proto::v1::RefusalReason;
use clade_proto::v1::session_request::Report;
use clade_proto::v1::session_response::Order;
use clade_proto::v1::worker_service_client::WorkerServiceClient;
use clade_store::Store;
use clade_store::checkpoint::{self, CheckpointManifest};
use cluster::coordinator::Coordinator;
use cluster::etcd::{self, Etcd};
use cluster::leader;
use cluster::worker::Worker;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Endpoint;

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_file_or_prefix_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().join("state").display());
    let mut holder = Coordinator::start(folder.path(), &[&state]);
    leader(std::slice::from_ref(&holder)).await;
    let mut second = Coordinator::start(folder.path(), &[&state]);
    assert!(!second.wait());
    assert!(second.log().contains("held by another coordinator"), "{}", second.log());
    holder.kill();
    let mut stranger = Coordinator::start(folder.path(), &[&state, "--cluster=stranger"]);
    assert!(!stranger.wait());
    assert!(stranger.log().contains("belongs to the cluster `clade`"), "{}", stranger.log());

    if !etcd::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let ours = Coordinator::on_etcd(folder.path(), &etcd.urls());
    leader(std::slice::from_ref(&ours)).await;
    let place = format!("--etcd={}", etcd.urls()[0]);
    let arguments = [place.as_str(), "--etcd-prefix=/clade/clade", "--cluster=stranger"];
    let mut stranger = Coordinator::start(folder.path(), &arguments);
    assert!(!stranger.wait());
    assert!(stranger.log().contains("belongs to the cluster `clade`"), "{}", stranger.log());
    assert!(ours.leads().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_floods_its_stream_is_cut_off_and_nobody_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().join("state").display());
    let coordinator = Coordinator::start(folder.path(), &[&state]);
    let port = coordinator.probes;
    leader(std::slice::from_ref(&coordinator)).await;
    let urls = [coordinator.url.clone()];
    let _quiet = Worker::new("quiet", 1).attach(&urls).await;
    let loud = Worker::new("loud", 1).attach(&urls).await;
    let (ended, refused) = loud.flood().await;
    assert_eq!(ended.code(), Code::ResourceExhausted, "{ended}");
    assert_eq!(refused, Some(RefusalReason::Flood));
    assert_eq!(cluster::counted(port, "schedule_refusals", "flood"), 1);
    let status = coordinator.status().await.unwrap();
    let quiet = status.workers.iter().find(|it| it.worker == "quiet").unwrap();
    assert_eq!(quiet.phase, "attached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_folder_of_another_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinators = Vec::new();
    for cluster in ["one", "two"] {
        let state = format!("--state={}", folder.path().join(cluster).display());
        let name = format!("--cluster={cluster}");
        coordinators.push(Coordinator::start(folder.path(), &[&state, &name]));
        leader(&coordinators[coordinators.len() - 1..]).await;
    }
    let apply = async |at: usize, name: &str| {
        let document = cluster::document(folder.path(), name, 1);
        coordinators[at].client().await.unwrap().apply_run(document).await
    };
    apply(0, "shared").await.unwrap();
    let refused = apply(1, "shared").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("another cluster (`one`)"), "{refused}");
    // Its own runs may lie beside it, and applying again what is one's own is no contradiction.
    apply(1, "own").await.unwrap();
    apply(0, "shared").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_documents_applied_at_once_the_one_in_the_state_is_the_one_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().join("state").display());
    let coordinator = Coordinator::start(folder.path(), &[&state]);
    leader(std::slice::from_ref(&coordinator)).await;
    for round in 0..10 {
        let name = format!("race-{round}");
        let mut documents: Vec<v1::ApplyRunRequest> = Vec::new();
        for seed in 0..4 {
            let request = cluster::document(folder.path(), &name, 1);
            let document = request.document.replace("seed: 7", &format!("seed: {seed}"));
            documents.push(v1::ApplyRunRequest { document, ..request });
        }
        let applies = documents.iter().map(|document| coordinator.apply(document.clone()));
        let taken: Vec<bool> =
            futures::future::join_all(applies).await.iter().map(Result::is_ok).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
        let stored = folder.path().join(format!("store/runs/{name}/spec.json"));
        let stored: serde_json::Value =
            serde_json::from_slice(&std::fs::read(stored).unwrap()).unwrap();
        let winner = taken.iter().position(|taken| *taken).unwrap();
        assert_eq!(stored["spec"]["seed"], winner, "{stored}");
        // Only the document that the state has may be applied again.
        for (seed, document) in documents.into_iter().enumerate() {
            assert_eq!(coordinator.apply(document).await.is_ok(), seed == winner);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_seated_is_refused_and_leaves_nothing_in_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().join("state").display());
    let coordinator = Coordinator::start(folder.path(), &[&state]);
    leader(std::slice::from_ref(&coordinator)).await;
    // The seed model needs two seats.
    let _narrow = Worker::new("narrow", 1).attach(std::slice::from_ref(&coordinator.url)).await;
    let document = cluster::document(folder.path(), "wide", 1);
    let refused = coordinator.apply(document.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("2 seats are needed and the cluster has 1"), "{refused}");
    assert!(!folder.path().join("store/runs/wide").exists());
    coordinator.apply(v1::ApplyRunRequest { queue: true, ..document }).await.unwrap();
    assert!(folder.path().join("store/runs/wide/spec.json").exists());
}

/// The first order on a stream that begins with this greeting, or why it ended.
async fn greet(url: &str, hello: v1::Hello) -> Result<Order, tonic::Status> {
    let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    let (reports, sent) = tokio::sync::mpsc::channel(1);
    let report = Some(Report::Hello(hello));
    reports.send(v1::SessionRequest { sequence: 0, report }).await.unwrap();
    let opening = WorkerServiceClient::new(channel).session(ReceiverStream::new(sent)).await;
    let first = opening?.into_inner().message().await?;
    Ok(first.and_then(|it| it.order).expect("a stream begins with an order"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_version_or_under_anothers_id_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().join("state").display());
    let coordinator = Coordinator::start(folder.path(), &[&state]);
    let port = coordinator.probes;
    leader(std::slice::from_ref(&coordinator)).await;
    let urls = [coordinator.url.clone()];
    let _known = Worker::new("known", 1).attach(&urls).await;
    let hello = || v1::Hello {
        worker: "known".to_owned(),
        node: "simulated".to_owned(),
        host: "host".to_owned(),
        pid: 1,
        slots: 1,
        protocol: clade_proto::PROTOCOL,
        secret: vec![7; 16],
        ..v1::Hello::default()
    };
    let refused = |order: Result<Order, tonic::Status>| match order {
        Ok(Order::Refused(refused)) => refused.reason(),
        other => panic!("{other:?}"),
    };
    let strange =
        v1::Hello { worker: "strange".to_owned(), protocol: clade_proto::PROTOCOL + 1, ..hello() };
    assert_eq!(refused(greet(&urls[0], strange).await), RefusalReason::Protocol);
    let impostor = v1::Hello { secret: vec![8; 16], ..hello() };
    assert_eq!(refused(greet(&urls[0], impostor).await), RefusalReason::WorkerChanged);
    let wider = v1::Hello { slots: 2, ..hello() };
    assert_eq!(refused(greet(&urls[0], wider).await), RefusalReason::WorkerChanged);
    let labels = |bytes: usize| [("label".to_owned(), "x".repeat(bytes))].into();
    let mut malformed = 0;
    for nonsense in [
        v1::Hello { labels: labels(900_000), ..hello() },
        // More than a message may have.
        v1::Hello { labels: labels(1_500_000), ..hello() },
        v1::Hello { host: "x".repeat(900_000), ..hello() },
        v1::Hello { secret: vec![7; 3], ..hello() },
        v1::Hello { worker: "a/b".to_owned(), ..hello() },
        v1::Hello { node: String::new(), ..hello() },
        v1::Hello { slots: 0, ..hello() },
        v1::Hello { slots: 1 << 20, ..hello() },
    ] {
        assert_eq!(refused(greet(&urls[0], nonsense).await), RefusalReason::Malformed);
        malformed += 1;
    }
    assert_eq!(cluster::counted(port, "schedule_refusals", "malformed"), malformed);
    assert_eq!(cluster::counted(port, "schedule_refusals", "protocol"), 1);
    assert_eq!(cluster::counted(port, "schedule_refusals", "worker_changed"), 2);
    let status = coordinator.status().await.unwrap();
    let workers: Vec<_> = status.workers.iter().map(|it| (&*it.worker, &*it.phase)).collect();
    assert_eq!(workers, [("known", "attached")]);
    // The same agent may come back.
    assert!(matches!(greet(&urls[0], hello()).await, Ok(Order::Welcome(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_worker_or_an_operator_fills_a_message_with_every_coordinator_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().join("state").display());
    let mut coordinator = Coordinator::start(folder.path(), &[&state]);
    leader(std::slice::from_ref(&coordinator)).await;
    let urls = [coordinator.url.clone()];
    let mut document = cluster::document(folder.path(), "run", 1);
    coordinator.apply(document.clone()).await.unwrap();
    let mut worker = Worker::new("liar", 1);
    let mut session = worker.attach(&urls).await;
    let is_start = |_: &Worker, order: &Order| matches!(order, Order::StartRank(_));
    worker.obey(&mut session, is_start).await.unwrap();

    let reason = "x".repeat(900_000);
    session.say(withdrawn(1, 0, reason.clone())).await;
    let (work, live) = worker.ranks.pop_first().unwrap();
    let v1::LiveRank { fence, rank, slot, .. } = live;
    let cause = v1::FailureCause::Data.into();
    let failed = v1::Failed { cause, message: reason, seconds: 0 };
    let outcome = Some(v1::rank_exited::Outcome::Failed(failed));
    let exited = Report::RankExited(v1::RankExited { fence, rank, slot, outcome });
    let request = v1::SessionRequest { sequence: 2, report: Some(exited) };
    session.say(request.clone()).await;
    worker.deliver(&mut session, &urls, request).await;
    let status = coordinator.status().await.unwrap();
    let told = &status.runs[0].reason;
    assert!(told.contains("xxx") && told.len() < 5_000, "{work}: {} bytes", told.len());

    document.document.push_str(&format!("\n#{}", "x".repeat(300_000)));
    let refused = coordinator.apply(document.clone()).await.unwrap_err();
    assert!(refused.message().contains("longer than 256 KiB"), "{refused}");
    let mut document = cluster::document(folder.path(), "far", 1);
    document.base_dir = format!("/{}", "x".repeat(400_000));
    let refused = coordinator.apply(document).await.unwrap_err();
    assert!(refused.message().contains("longer than 256 KiB"), "{refused}");
    assert!(coordinator.is_alive() && coordinator.leads().await);
}

fn withdrawn(sequence: u64, slot: u32, reason: String) -> v1::SessionRequest {
    let report = Some(Report::DeviceWithdrawn(v1::DeviceWithdrawn { slot, reason }));
    v1::SessionRequest { sequence, report }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_not_in_the_store_as_reported_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().join("state").display());
    let coordinator = Coordinator::start(folder.path(), &[&state]);
    leader(std::slice::from_ref(&coordinator)).await;
    let mut request = cluster::document(folder.path(), "clipart", 1);
    request.document = request.document.replace("seed: {ranks: 2}", "seed: {ranks: 1}");
    coordinator.apply(request).await.unwrap();
    let urls = [coordinator.url.clone()];
    let mut worker = Worker::new("w1", 4);
    let mut session = worker.attach(&urls).await;
    for job in ["index.0", "catalog.0"] {
        if !worker.ranks.contains_key(job) {
            let ordered = |worker: &Worker, _: &Order| worker.ranks.contains_key(job);
            worker.obey(&mut session, ordered).await.unwrap();
        }
        let done = worker.finish(&session, job).await;
        worker.deliver(&mut session, &urls, done).await;
    }
    if !worker.ranks.contains_key("seed") {
        worker.obey(&mut session, |worker, _| worker.ranks.contains_key("seed")).await.unwrap();
    }
    let fence = worker.ranks["seed"].fence.clone();
    let committed = async || {
        let status = coordinator.status().await.unwrap();
        let seed = status.runs[0].parts.iter().find(|part| part.name == "seed").unwrap();
        (seed.phase.clone(), seed.committed_step)
    };

    // What is due would even end the training.
    let run: RunName = "clipart".parse().unwrap();
    let nothing = Digest::from_str(&"0".repeat(64)).unwrap();
    let manifest = CheckpointManifest {
        run: run.clone(),
        model: ModelId::Seed,
        incarnation: Incarnation(1),
        step: Step(200),
        cursor: 200 * 128,
        parts: Vec::new(),
        parent: None,
        seed: 7,
        world_size: 1,
        how: None,
        data: nothing,
        spec: nothing,
        code_version: "test".to_owned(),
    };
    let store = Store::open(&format!("file://{}", folder.path().join("store").display())).unwrap();
    let there = checkpoint::commit(&store, &run, &manifest).await.unwrap();
    for (step, digest) in [(288, &nothing), (100, &nothing), (200, &nothing)] {
        let manifest = digest.to_string();
        let lie = v1::CheckpointWritten { fence: fence.clone(), step, manifest };
        let lie = worker.numbered(Report::CheckpointWritten(lie));
        session.say(lie.clone()).await;
        worker.deliver(&mut session, &urls, lie).await;
        assert_eq!(committed().await.1, 0, "step {step}");
    }
    assert_eq!(cluster::counted(coordinator.probes, "schedule_refusals", "unproved"), 3);
    let manifest = there.manifest.to_string();
    let truth = v1::CheckpointWritten { fence, step: 200, manifest };
    let truth = worker.numbered(Report::CheckpointWritten(truth));
    session.say(truth.clone()).await;
    worker.deliver(&mut session, &urls, truth).await;
    assert_eq!(committed().await.1, 200);
}
