//! The gRPC server: which services there are, and the limits every connection is held to.

mod crowd;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use clade_access::guard::Guard;
use clade_access::keep_fresh;
use clade_proto::v1::fleet_service_server::FleetServiceServer;
use clade_proto::v1::run_service_server::RunServiceServer;
use clade_proto::v1::worker_service_server::WorkerServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::guard::Door;
use crate::metrics::Metrics;
use crate::operators::Operators;
use crate::role::Roles;
use crate::workers::Workers;
use crowd::Crowd;

/// Both sides say that they are there, so that a cut cable is noticed.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Requests and streams of one connection at a time: a worker has one stream, a client a few requests.
const AT_A_TIME: u32 = 64;

/// How long a request may take; of a stream, until it begins. Applying a run lists its inputs.
const LONGEST_REQUEST: Duration = Duration::from_secs(120);

/// The largest message of an operator that is taken: a document too long is told so by its name.
const LARGEST_MESSAGE: usize = 4 << 20;

/// The largest report of a worker: the counts of thousands of experts are a third of it.
const LARGEST_REPORT: usize = 1 << 20;

/// Serves until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    door: Door,
    roles: Roles,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (guard, incoming) = (door.guard(), door.incoming(listener));
    let counting = tokio::spawn(count_refusals(guard.clone(), metrics.clone(), shutdown.clone()));
    let renewing = tokio::spawn(keep_fresh(door.tokens, door.tls, shutdown.clone()));
    let crowd = Crowd::new(metrics.clone());
    let workers = WorkerServiceServer::new(Workers::new(roles.clone(), metrics, shutdown.clone()));
    let operators = RunServiceServer::new(Operators::new(roles.clone()));
    let fleet = FleetServiceServer::new(Fleet::new(roles));
    let served = tonic::transport::Server::builder()
        .layer(guard)
        .layer(crowd)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(AT_A_TIME)
        .concurrency_limit_per_connection(AT_A_TIME as usize)
        .timeout(LONGEST_REQUEST)
        .tcp_nodelay(true)
        .add_service(workers.max_decoding_message_size(LARGEST_REPORT))
        .add_service(operators.max_decoding_message_size(LARGEST_MESSAGE))
        .add_service(fleet.max_decoding_message_size(LARGEST_MESSAGE))
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned())
        .await
        .context("serving failed");
    shutdown.cancel();
    counting.await.context("the task that counts refusals failed")?;
    renewing.await.context("the task that renews tokens and certificates failed")?;
    served
}

/// Passes on to the metrics what the guard has counted.
async fn count_refusals(guard: Guard, metrics: Metrics, shutdown: CancellationToken) {
    let mut told: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut looks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = looks.tick() => (),
        }
        for (reason, count) in guard.refusals() {
            let before = told.insert(reason.word(), count).unwrap_or(0);
            (before..count).for_each(|_| metrics.access_refused(reason.word()));
        }
    }
}
