//! Keeps a stream to the coordinator open: connects, passes on what arrives, connects again.
//!
//! Decides nothing. What is said over a stream is the agent's business; it gets a sender for
//! each new stream, and its first message there is Hello.

use std::time::Duration;

use clade_core::order::Random;
use clade_proto::v1::worker_service_client::WorkerServiceClient;
use clade_proto::v1::{SessionRequest, SessionResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);
const BACKOFF_FROM: Duration = Duration::from_millis(100);
const BACKOFF_TO: Duration = Duration::from_secs(2);
const QUEUED_REPORTS: usize = 1024;

/// What happens to the connection.
#[derive(Debug)]
pub(super) enum SessionEvent {
    Opened(Stream),
    Order(Box<SessionResponse>),
    Closed { reason: String },
}

/// The sending side of one stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) reports: mpsc::Sender<SessionRequest>,
    /// Ends this stream; the session then opens another.
    pub(super) close: CancellationToken,
}

/// Runs until `end` or until nobody listens any more.
pub(super) async fn keep(
    endpoint: Endpoint,
    events: mpsc::Sender<SessionEvent>,
    mut random: Random,
    end: CancellationToken,
) {
    let endpoint = endpoint
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_DEADLINE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let mut backoff = BACKOFF_FROM;
    loop {
        let mut heard = false;
        let reason = tokio::select! {
            () = end.cancelled() => return,
            ended = converse(&endpoint, &events, &mut heard) => ended,
        };
        if heard {
            backoff = BACKOFF_FROM;
        }
        if events.send(SessionEvent::Closed { reason }).await.is_err() {
            return;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(backoff.mul_f64(0.5 + random.unit() / 2.0)) => (),
        }
        backoff = (backoff * 2).min(BACKOFF_TO);
    }
}

/// One stream from its beginning to its end; returns why it ended.
async fn converse(
    endpoint: &Endpoint,
    events: &mpsc::Sender<SessionEvent>,
    heard: &mut bool,
) -> String {
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return explain(&error),
    };
    let (reports, queued) = mpsc::channel(QUEUED_REPORTS);
    let close = CancellationToken::new();
    // Before the answer: a coordinator may want to hear Hello first.
    let stream = Stream { reports, close: close.clone() };
    if events.send(SessionEvent::Opened(stream)).await.is_err() {
        return "the agent ends".to_owned();
    }
    let mut client = WorkerServiceClient::new(channel);
    let receive = async {
        let opening =
            tokio::time::timeout(CONNECT_DEADLINE, client.session(ReceiverStream::new(queued)));
        let mut orders = match opening.await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return status.to_string(),
            Err(_) => return "the coordinator does not answer".to_owned(),
        };
        loop {
            match orders.message().await {
                Ok(Some(order)) => {
                    *heard = true;
                    if events.send(SessionEvent::Order(Box::new(order))).await.is_err() {
                        return "the agent ends".to_owned();
                    }
                }
                Ok(None) => return "the coordinator ended the stream".to_owned(),
                Err(status) => return status.message().to_owned(),
            }
        }
    };
    tokio::select! {
        reason = receive => reason,
        () = close.cancelled() => "the agent ended the stream".to_owned(),
    }
}

/// An error with all of its causes: tonic's own text says only "transport error".
fn explain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
