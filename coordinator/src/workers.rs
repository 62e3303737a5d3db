//! The workers' side of the coordinator: one stream each, judged alive by what arrives on it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clade_access::Identity;
use clade_core::ids::{Fence, NodeName, WorkerId};
use clade_core::schedule::{Event, LiveRank, Offer};
use clade_proto::convert::{WireError, required};
use clade_proto::v1::session_request::Report;
use clade_proto::v1::worker_service_server::WorkerService;
use clade_proto::v1::{self, SessionRequest, SessionResponse};
use futures::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::allowance::Allowance;
use crate::engine::{Command, Engine, ORDERS_IN_FLIGHT, Orders, StreamId, no_longer};
use crate::metrics::Metrics;
use crate::outside;
use crate::role::Roles;

/// Silence after which a stream is given up; workers speak every second.
const SILENCE: Duration = Duration::from_secs(5);

/// Reports that one stream may bring for long; a busy worker brings a dozen.
const REPORTS_PER_SECOND: u32 = 200;

/// Reports it may bring at once, as after an outage, and the excess of some seconds.
const REPORTS_AT_ONCE: u32 = 1000;

/// Version of the protocol between workers and coordinators; there is no other yet.
const PROTOCOL: u32 = 1;

/// No machine has so many devices.
const MOST_SLOTS: u32 = 1_024;

/// Serves the workers.
pub(crate) struct Workers {
    roles: Roles,
    streams: Arc<AtomicU64>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Workers {
    pub(crate) fn new(roles: Roles, metrics: Metrics, shutdown: CancellationToken) -> Self {
        Self { roles, streams: Arc::default(), metrics, shutdown }
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
        let mut reports = request.into_inner();
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let (sender, taken) = mpsc::channel(ORDERS_IN_FLIGHT);
        let orders = Orders { sender, hang_up: CancellationToken::new() };
        let (shutdown, metrics) = (self.shutdown.clone(), self.metrics.clone());
        // The headers go out before the first report is in, or both sides would wait for each other.
        tokio::spawn(async move {
            let listening = async {
                let worker = hello(&engine, stream, &identity, &orders, &mut reports).await?;
                let ended = tokio::select! {
                    ended = listen(&engine, &worker, &mut reports, &metrics) => ended,
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
                () = engine.over() => Err(no_longer()),
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
    identity: &Identity,
    orders: &Orders,
    reports: &mut Streaming<SessionRequest>,
) -> Result<WorkerId, Status> {
    let first = next(reports).await?.and_then(|request| request.report);
    let Some(Report::Hello(hello)) = first else {
        return Err(Status::invalid_argument("the first message of a stream must be hello"));
    };
    if hello.protocol != PROTOCOL {
        let why = format!(
            "the worker speaks version {} of the protocol and this coordinator version {PROTOCOL}: \
             install the same version of Clade on both",
            hello.protocol
        );
        refuse(engine, orders, v1::RefusalReason::Protocol, &why);
        return Err(Status::failed_precondition(why));
    }
    let (worker, event) = attached(hello)?;
    if !identity.may_speak_for(&worker.0) {
        return Err(Status::permission_denied(format!(
            "`{}` may not speak for worker `{worker}`: a worker's id begins with the name of its \
             token or certificate",
            identity.name()
        )));
    }
    let (refused, why) = oneshot::channel();
    let attach =
        Command::Attach { worker: worker.clone(), stream, orders: orders.clone(), event, refused };
    engine.send(attach).await?;
    match why.await {
        Ok(why) => {
            refuse(engine, orders, outside::refusal_reason(&why), &why.to_string());
            Err(Status::permission_denied(why.to_string()))
        }
        // Taken: nobody will say why not.
        Err(_) => Ok(worker),
    }
}

/// Tells a worker as a whole that it is not taken.
fn refuse(engine: &Engine, orders: &Orders, reason: v1::RefusalReason, why: &str) {
    let refused = v1::Refused::new(None, reason, why.to_owned());
    let order = Some(v1::session_response::Order::Refused(refused));
    orders.sender.try_send(Ok(SessionResponse { term: engine.term().0, order })).ok();
}

/// What a worker says of itself, judged.
fn attached(hello: v1::Hello) -> Result<(WorkerId, Event), Status> {
    let secret = hello.secret().map_err(|error| malformed(&error))?;
    let v1::Hello { worker, host, pid, slots, ranks, node, domain, labels, devices, .. } = hello;
    for (what, name) in [("worker", &worker), ("node", &node)] {
        if name.is_empty() || name.len() > 253 || name.contains(['/', '\n']) {
            return Err(Status::invalid_argument(format!("`{name}` cannot name a {what}")));
        }
    }
    if slots == 0 || slots > MOST_SLOTS {
        return Err(Status::invalid_argument(format!("{slots} slots: must be 1 to {MOST_SLOTS}")));
    }
    let ranks = ranks.iter().map(live_rank).collect::<Result<Vec<_>, _>>();
    let ranks = ranks.map_err(|error| malformed(&error))?;
    let withdrawn = devices.iter().filter(|it| !it.withdrawn.is_empty());
    let withdrawn = withdrawn.map(|it| (it.slot, it.withdrawn.clone())).collect();
    let first = devices.first();
    info!(worker, node, host, pid, slots, ranks = ranks.len(), "attaches");
    let offer = Offer {
        domain: if domain.is_empty() { host.clone() } else { domain },
        node: NodeName(node),
        host,
        pid,
        slots,
        kind: first.map_or_else(|| "cpu".to_owned(), |device| device.kind.clone()),
        memory_mib: devices.iter().map(|device| device.memory_mib).min().unwrap_or(0),
        labels: labels.into_iter().collect(),
        secret: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let worker = WorkerId(worker);
    let event = Event::WorkerAttached { worker: worker.clone(), offer, withdrawn, ranks };
    Ok((worker, event))
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
    metrics: &Metrics,
) -> Result<(), Status> {
    let mut allowance = Allowance::new(REPORTS_PER_SECOND, REPORTS_AT_ONCE);
    while let Some(SessionRequest { sequence, report }) = next(reports).await? {
        if !allowance.take() {
            metrics.refusal("flood");
            warn!(%worker, "says too much; its stream is ended");
            return Err(Status::resource_exhausted(format!(
                "more than {REPORTS_PER_SECOND} reports a second for several seconds: join again \
                 and say less"
            )));
        }
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
            return Ok(Some(Command::Progress { worker: worker.clone(), fence, progress }));
        }
        Report::RankExited(exited) => Event::RankExited {
            outcome: exited.to_core()?,
            rank: exited.rank,
            fence: fence(exited.fence)?,
            worker: worker.clone(),
        },
        Report::RendezvousPosted(v1::RendezvousPosted { fence: it, address }) => {
            Event::RendezvousPosted { worker: worker.clone(), fence: fence(it)?, address }
        }
        Report::CheckpointWritten(written) => {
            let (fence, checkpoint) = written.to_core()?;
            Event::CheckpointReported { worker: worker.clone(), fence, checkpoint }
        }
        Report::DeviceWithdrawn(v1::DeviceWithdrawn { slot, reason }) => {
            warn!(%worker, slot, reason, "withdrew a device");
            Event::DeviceWithdrawn { worker: worker.clone(), slot, reason }
        }
        Report::Goodbye(v1::Goodbye {}) => Event::WorkerLeft { worker: worker.clone() },
    };
    Ok(Some(Command::Report { worker: worker.clone(), sequence, event }))
}
