//! The gRPC server: which services there are, and the limits every connection is held to.

use std::time::Duration;

use anyhow::Context as _;
use clade_proto::v1::fleet_service_server::FleetServiceServer;
use clade_proto::v1::run_service_server::RunServiceServer;
use clade_proto::v1::worker_service_server::WorkerServiceServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::operators::Operators;
use crate::role::Roles;
use crate::workers::Workers;

/// Both sides say that they are there, so that a cut cable is noticed.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Requests and streams of one connection at a time: a worker has one stream, a client a few requests.
const AT_A_TIME: u32 = 64;

/// How long a request may take; of a stream, until it begins. Applying a run lists its inputs.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// The largest message taken: a run document of some thousand lines is a tenth of it.
const LARGEST_MESSAGE: usize = 4 << 20;

/// Serves until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    roles: Roles,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let workers = WorkerServiceServer::new(Workers::new(roles.clone(), shutdown.clone()));
    let operators = RunServiceServer::new(Operators::new(roles.clone()));
    let fleet = FleetServiceServer::new(Fleet::new(roles));
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(AT_A_TIME)
        .concurrency_limit_per_connection(AT_A_TIME as usize)
        .timeout(LONGEST_REQUEST)
        .tcp_nodelay(true)
        .add_service(workers.max_decoding_message_size(LARGEST_MESSAGE))
        .add_service(operators.max_decoding_message_size(LARGEST_MESSAGE))
        .add_service(fleet.max_decoding_message_size(LARGEST_MESSAGE))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned())
        .await
        .context("serving failed")
}
