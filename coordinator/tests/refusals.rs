//! What a coordinator refuses: places that are not its own, and callers that say too much.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod cluster;

use cluster::coordinator::Coordinator;
use cluster::etcd::{self, Etcd};
use cluster::leader;
use cluster::worker::Worker;
use tonic::Code;

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
    leader(std::slice::from_ref(&coordinator)).await;
    let urls = [coordinator.url.clone()];
    let _quiet = Worker::new("quiet", 1).attach(&urls).await;
    let loud = Worker::new("loud", 1).attach(&urls).await;
    let ended = loud.flood().await;
    assert_eq!(ended.code(), Code::ResourceExhausted, "{ended}");
    let status = coordinator.status().await.unwrap();
    let quiet = status.workers.iter().find(|it| it.worker == "quiet").unwrap();
    assert_eq!(quiet.phase, "attached");
}
