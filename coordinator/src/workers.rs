//! The workers' side of the coordinator: one stream each, judged alive by what arrives on it.

mod greeting;
mod proof;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clade_access::Identity;
use clade_proto::v1::worker_service_server::WorkerService;
use clade_proto::v1::{SessionRequest, SessionResponse};
use futures::Stream;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::engine::{ORDERS_IN_FLIGHT, Orders, no_longer};
use crate::metrics::Metrics;
use crate::role::Roles;
use session::Session;

/// Streams at a time: twice the workers that one coordinator is meant for.
const MOST_STREAMS: usize = 20_000;

/// Serves the workers.
pub(crate) struct Workers {
    roles: Roles,
    streams: Arc<AtomicU64>,
    room: Arc<Semaphore>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Workers {
    pub(crate) fn new(roles: Roles, metrics: Metrics, shutdown: CancellationToken) -> Self {
        let room = Arc::new(Semaphore::new(MOST_STREAMS));
        Self { roles, streams: Arc::default(), room, metrics, shutdown }
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let engine = self.roles.engine()?;
        let identity = request.extensions().get::<Identity>().cloned();
        let identity =
            identity.ok_or_else(|| Status::unauthenticated("nobody asked who this is"))?;
        let seat = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            self.metrics.access_refused("too_many_workers");
            Status::resource_exhausted(format!(
                "{MOST_STREAMS} workers hold streams here already: try again later"
            ))
        })?;
        let mut reports = request.into_inner();
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let (sender, taken) = mpsc::channel(ORDERS_IN_FLIGHT);
        let orders = Orders { sender, hang_up: CancellationToken::new() };
        let (shutdown, over) = (self.shutdown.clone(), engine.clone());
        let session = Session::new(engine, stream, identity, orders.clone(), self.metrics.clone());
        // The headers go out before the first report is in, or both sides would wait for each other.
        tokio::spawn(async move {
            let _seat = seat;
            let ended = tokio::select! {
                ended = session.serve(&mut reports) => ended,
                () = shutdown.cancelled() => Err(Status::unavailable("the coordinator is stopping")),
                () = over.over() => Err(no_longer()),
            };
            if let Err(status) = ended {
                orders.sender.try_send(Err(status)).ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(taken))))
    }
}
