//! One worker's stream, from its hello to its end.
//!
//! It ends with the worker's half or with ours, whichever goes first: once nobody takes its orders
//! (the connection broke, or the guard ended the answer because the identity is no longer good)
//! nothing that is still said on it counts.

use std::time::Duration;

use clade_access::Identity;
use clade_core::ids::{Fence, WorkerId};
use clade_core::schedule::Event;
use clade_proto::convert::{WireError, required};
use clade_proto::v1::session_request::Report;
use clade_proto::v1::{self, RefusalReason, SessionRequest, SessionResponse};
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, Streaming};
use tracing::{info, warn};

use super::greeting::{Unwelcome, judge};
use super::proof::Proofs;
use crate::allowance::Allowance;
use crate::engine::{Command, Engine, NotTaken, Orders, StreamId};
use crate::metrics::Metrics;

/// Silence after which a stream is given up; workers speak every second.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a worker may wait to be attached before it is told to come again: an engine that cannot
/// save must not gather streams of workers that have long gone.
const ATTACHING: Duration = Duration::from_secs(5);

/// Reports that one stream may bring for long; a busy worker brings a dozen.
const REPORTS_PER_SECOND: u32 = 200;

/// Reports it may bring at once, as after an outage, and the excess of some seconds.
const REPORTS_AT_ONCE: u32 = 1000;

/// One stream.
pub(super) struct Session {
    engine: Engine,
    stream: StreamId,
    identity: Identity,
    orders: Orders,
    metrics: Metrics,
}

/// A worker of which the engine has been told.
struct Attaching {
    worker: WorkerId,
    /// Why it is not taken; dropped if it is.
    refused: oneshot::Receiver<NotTaken>,
}

impl Session {
    pub(super) const fn new(
        engine: Engine,
        stream: StreamId,
        identity: Identity,
        orders: Orders,
        metrics: Metrics,
    ) -> Self {
        Self { engine, stream, identity, orders, metrics }
    }

    /// Serves the stream to its end.
    pub(super) async fn serve(
        &self,
        reports: &mut Streaming<SessionRequest>,
    ) -> Result<(), Status> {
        let Attaching { worker, refused } = tokio::select! {
            attaching = self.greet(reports) => attaching?,
            () = self.orders.sender.closed() => return Ok(()),
        };
        // The engine knows of this stream, or soon will: from here on its end must be told.
        let ended = tokio::select! {
            ended = self.listen(&worker, refused, reports) => ended,
            () = self.orders.hang_up.cancelled() => {
                Err(Status::resource_exhausted("this worker does not take its orders"))
            }
            () = self.orders.sender.closed() => Ok(()),
        };
        let detach = Command::Detach { worker: worker.clone(), stream: self.stream };
        self.engine.send(detach).await?;
        info!(%worker, "stream ended");
        ended
    }

    /// Waits for the worker's first message and tells the engine.
    async fn greet(&self, reports: &mut Streaming<SessionRequest>) -> Result<Attaching, Status> {
        let first = self.next(reports).await?.and_then(|request| request.report);
        let Some(Report::Hello(hello)) = first else {
            let why = "the first message of a stream must be hello".to_owned();
            return Err(self.turn_away(RefusalReason::Malformed, why));
        };
        let (worker, event) = judge(hello, &self.identity).map_err(|why| {
            let reason = match &why {
                Unwelcome::Protocol { .. } => RefusalReason::Protocol,
                Unwelcome::Malformed(_) => RefusalReason::Malformed,
                Unwelcome::Worker { .. } | Unwelcome::Node { .. } => RefusalReason::Identity,
            };
            self.turn_away(reason, why.to_string())
        })?;
        let (reply, refused) = oneshot::channel();
        let attach = Command::Attach {
            worker: worker.clone(),
            stream: self.stream,
            orders: self.orders.clone(),
            event,
            refused: reply,
        };
        let sent = tokio::time::timeout(ATTACHING, self.engine.send(attach)).await;
        sent.map_err(|_| Status::unavailable("this coordinator is behind: join again"))??;
        Ok(Attaching { worker, refused })
    }

    /// Passes reports on until the stream ends.
    async fn listen(
        &self,
        worker: &WorkerId,
        refused: oneshot::Receiver<NotTaken>,
        reports: &mut Streaming<SessionRequest>,
    ) -> Result<(), Status> {
        // An error means that it is taken: nobody will say why not.
        if let Ok(why) = refused.await {
            self.refuse(why.reason(), why.to_string());
            return Err(Status::permission_denied(why.to_string()));
        }
        let mut proofs = Proofs::default();
        let mut allowance = Allowance::new(REPORTS_PER_SECOND, REPORTS_AT_ONCE);
        while let Some(SessionRequest { sequence, report }) = self.next(reports).await? {
            if !allowance.take() {
                let why = format!(
                    "more than {REPORTS_PER_SECOND} reports a second for several seconds: join again \
                     and say less"
                );
                return Err(self.turn_away(RefusalReason::Flood, why));
            }
            match report.map(|report| command(worker, sequence, report)).transpose() {
                Ok(Some(Some(command))) => self.pass_on(command, &mut proofs).await?,
                Ok(Some(None) | None) => (),
                // Acknowledged or not, it would come again and again and never mean anything.
                Err(error) => {
                    return Err(self.turn_away(RefusalReason::Malformed, error.to_string()));
                }
            }
        }
        Ok(())
    }

    /// Tells the engine, but for checkpoints that are not there.
    async fn pass_on(&self, command: Command, proofs: &mut Proofs) -> Result<(), Status> {
        if let Command::Report { worker, sequence, event } = &command
            && let Some((fence, why)) = proofs.refuse(&self.engine, event).await
        {
            self.metrics.refusal("unproved");
            warn!(%worker, %fence, why, "refuses a checkpoint");
            let refused = v1::Refused::new(Some(&fence), RefusalReason::Malformed, why);
            self.tell(v1::session_response::Order::Refused(refused));
            // It would be as wrong the next time.
            let sequence = *sequence;
            self.tell(v1::session_response::Order::Acknowledge(v1::Acknowledge { sequence }));
            return Ok(());
        }
        self.engine.send(command).await
    }

    async fn next(
        &self,
        reports: &mut Streaming<SessionRequest>,
    ) -> Result<Option<SessionRequest>, Status> {
        let report = match tokio::time::timeout(SILENCE, reports.next()).await {
            Ok(report) => report.transpose(),
            Err(_) => return Err(Status::deadline_exceeded("no heartbeat for 5 s")),
        };
        report.map_err(|status| {
            // Too large, or no message at all; a connection that breaks is told by other codes.
            if matches!(status.code(), Code::OutOfRange | Code::Internal) {
                return self.turn_away(RefusalReason::Malformed, status.message().to_owned());
            }
            status
        })
    }

    /// Counts a refusal of the whole stream and tells the worker; gives what the stream ends with.
    fn turn_away(&self, reason: RefusalReason, why: String) -> Status {
        let (word, code) = match reason {
            RefusalReason::Protocol => ("protocol", Code::FailedPrecondition),
            RefusalReason::Identity => ("identity", Code::PermissionDenied),
            RefusalReason::Flood => ("flood", Code::ResourceExhausted),
            RefusalReason::Malformed
            | RefusalReason::Unspecified
            | RefusalReason::UnknownWork
            | RefusalReason::Superseded
            | RefusalReason::NotSeated
            | RefusalReason::NotYours
            | RefusalReason::BeyondDue
            | RefusalReason::UnknownWorker
            | RefusalReason::WorkerChanged => ("malformed", Code::InvalidArgument),
        };
        self.metrics.refusal(word);
        warn!(name = self.identity.name(), reason = word, why, "turns a worker away");
        self.refuse(reason, why.clone());
        Status::new(code, why)
    }

    /// Tells the worker as a whole that it is not taken.
    fn refuse(&self, reason: RefusalReason, why: String) {
        self.tell(v1::session_response::Order::Refused(v1::Refused::new(None, reason, why)));
    }

    fn tell(&self, order: v1::session_response::Order) {
        let response = SessionResponse { term: self.engine.term().0, order: Some(order) };
        self.orders.sender.try_send(Ok(response)).ok();
    }
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
        Report::RendezvousPosted(posted) => {
            let (fence, address) = posted.to_core()?;
            Event::RendezvousPosted { worker: worker.clone(), fence, address }
        }
        Report::CheckpointWritten(written) => {
            let (fence, checkpoint) = written.to_core()?;
            Event::CheckpointReported { worker: worker.clone(), fence, checkpoint }
        }
        Report::DeviceWithdrawn(withdrawn) => {
            let (slot, reason) = withdrawn.to_core();
            warn!(%worker, slot, reason, "withdrew a device");
            Event::DeviceWithdrawn { worker: worker.clone(), slot, reason }
        }
        Report::Goodbye(v1::Goodbye {}) => Event::WorkerLeft { worker: worker.clone() },
    };
    Ok(Some(Command::Report { worker: worker.clone(), sequence, event }))
}
