//! The workers' side of the coordinator: one stream each, judged alive by what arrives on it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clade_core::ids::{Fence, WorkerId};
use clade_core::schedule::{Event, LiveRank};
use clade_proto::convert::{WireError, required};
use clade_proto::v1::session_request::Report;
use clade_proto::v1::worker_service_server::WorkerService;
use clade_proto::v1::{self, SessionRequest, SessionResponse};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::engine::{Command, Engine, ORDERS_IN_FLIGHT, Orders, StreamId};

/// Silence after which a stream is given up; workers speak every second.
const SILENCE: Duration = Duration::from_secs(5);

/// Serves the workers.
pub(crate) struct Workers {
    engine: Engine,
    streams: Arc<AtomicU64>,
    shutdown: CancellationToken,
}

impl Workers {
    pub(crate) fn new(engine: Engine, shutdown: CancellationToken) -> Self {
        Self { engine, streams: Arc::default(), shutdown }
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut reports = request.into_inner();
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let (sender, taken) = mpsc::channel(ORDERS_IN_FLIGHT);
        let orders = Orders { sender, hang_up: CancellationToken::new() };
        let (engine, shutdown) = (self.engine.clone(), self.shutdown.clone());
        // The headers go out before the first report is in, or both sides would wait for each other.
        tokio::spawn(async move {
            let listening = async {
                let worker = hello(&engine, stream, &orders, &mut reports).await?;
                let ended = tokio::select! {
                    ended = listen(&engine, &worker, &mut reports) => ended,
                    () = orders.hang_up.cancelled() => {
                        Err(Status::resource_exhausted("this worker does not take its orders"))
                    }
                };
                engine.send(Command::Detach { worker: worker.clone(), stream }).await?;
                info!(%worker, "stream ended");
                ended
            };
            let ended = tokio::select! {
                ended = listening => ended,
                () = shutdown.cancelled() => Err(Status::unavailable("the coordinator is stopping")),
            };
            if let Err(status) = ended {
                orders.sender.try_send(Err(status)).ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(taken))))
    }
}

async fn next(reports: &mut Streaming<SessionRequest>) -> Result<Option<SessionRequest>, Status> {
    match tokio::time::timeout(SILENCE, reports.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(report)) => report.map(Some),
        Err(_) => Err(Status::deadline_exceeded("no heartbeat for 5 s")),
    }
}

fn malformed(error: &WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Waits for the worker's first message and attaches it.
async fn hello(
    engine: &Engine,
    stream: StreamId,
    orders: &Orders,
    reports: &mut Streaming<SessionRequest>,
) -> Result<WorkerId, Status> {
    let first = next(reports).await?.and_then(|request| request.report);
    let Some(Report::Hello(v1::Hello { worker, host, pid, slots, ranks, .. })) = first else {
        return Err(Status::invalid_argument("the first message of a stream must be hello"));
    };
    if worker.is_empty() || worker.contains('/') {
        return Err(Status::invalid_argument(format!("`{worker}` cannot name a worker")));
    }
    let ranks = ranks.iter().map(live_rank).collect::<Result<Vec<_>, _>>();
    let ranks = ranks.map_err(|error| malformed(&error))?;
    let worker = WorkerId(worker);
    info!(%worker, host, pid, slots, ranks = ranks.len(), "attaches");
    let event = Event::WorkerAttached { worker: worker.clone(), host, pid, slots, ranks };
    let orders = orders.clone();
    engine.send(Command::Attach { worker: worker.clone(), stream, orders, event }).await?;
    Ok(worker)
}

fn live_rank(wire: &v1::LiveRank) -> Result<LiveRank, WireError> {
    let v1::LiveRank { fence, rank, slot, pid: _ } = wire;
    let fence = Fence::try_from(&required("fence", fence.clone())?)?;
    Ok(LiveRank { fence, rank: *rank, slot: *slot })
}

/// Passes reports on until the stream ends.
async fn listen(
    engine: &Engine,
    worker: &WorkerId,
    reports: &mut Streaming<SessionRequest>,
) -> Result<(), Status> {
    while let Some(SessionRequest { sequence, report }) = next(reports).await? {
        match report.map(|report| command(worker, sequence, report)).transpose() {
            Ok(Some(Some(command))) => engine.send(command).await?,
            Ok(Some(None) | None) => (),
            Err(error) => {
                // Acknowledged or not, it would come again and again and never mean anything.
                warn!(%worker, %error, "sent a report that means nothing");
                return Err(malformed(&error));
            }
        }
    }
    Ok(())
}

/// What a report asks of the engine; nothing for a mere sign of life.
fn command(worker: &WorkerId, sequence: u64, report: Report) -> Result<Option<Command>, WireError> {
    let fence = |fence: Option<v1::Fence>| Fence::try_from(&required("fence", fence)?);
    let event = match report {
        Report::Heartbeat(v1::Heartbeat {}) => return Ok(None),
        Report::Hello(_) => return Err(WireError::Missing("report: hello was said before")),
        Report::Progress(progress) => {
            let fence = fence(progress.fence.clone())?;
            return Ok(Some(Command::Progress { fence, progress }));
        }
        Report::RankExited(exited) => Event::RankExited {
            outcome: exited.to_core()?,
            rank: exited.rank,
            fence: fence(exited.fence)?,
        },
        Report::RendezvousPosted(v1::RendezvousPosted { fence: it, address }) => {
            Event::RendezvousPosted { fence: fence(it)?, address }
        }
        Report::CheckpointWritten(written) => {
            let (fence, checkpoint) = written.to_core()?;
            Event::CheckpointReported { worker: worker.clone(), fence, checkpoint }
        }
        // Nothing is decided by it yet: the agent refuses ranks for that slot.
        Report::DeviceWithdrawn(v1::DeviceWithdrawn { slot, reason }) => {
            warn!(%worker, slot, reason, "withdrew a device");
            return Ok(Some(Command::Noted { worker: worker.clone(), sequence }));
        }
        Report::Goodbye(v1::Goodbye {}) => Event::WorkerLeft { worker: worker.clone() },
    };
    Ok(Some(Command::Report { worker: worker.clone(), sequence, event }))
}
