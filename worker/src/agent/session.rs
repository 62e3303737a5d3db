//! Keeps a stream to a coordinator open: connects, passes on what arrives, connects again, to
//! another one if there are several.
//!
//! Decides nothing but whom to call. What is said over a stream is the agent's business; it gets a
//! sender for each new stream, and its first message there is Hello.

use std::time::Duration;

use clade_proto::v1::worker_service_client::WorkerServiceClient;
use clade_proto::v1::{SessionRequest, SessionResponse};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::addresses::{Addresses, Ended};

/// Metadata of an answer from a coordinator that does not lead: the address of the one that does.
const LEADER: &str = "clade-leader";
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// With others to turn to: a new leader waits 8 s for its workers.
const CONNECT_DEADLINE_OF_SEVERAL: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(3);
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
    pub(super) coordinator: String,
    pub(super) reports: mpsc::Sender<SessionRequest>,
    /// Ends this stream; the session then opens another.
    pub(super) close: CancellationToken,
}

/// Runs until `end` or until nobody listens any more.
pub(super) async fn keep(
    mut addresses: Addresses,
    events: mpsc::Sender<SessionEvent>,
    end: CancellationToken,
) {
    loop {
        let deadline =
            if addresses.are_several() { CONNECT_DEADLINE_OF_SEVERAL } else { CONNECT_DEADLINE };
        let ended = tokio::select! {
            () = end.cancelled() => return,
            ended = converse(addresses.current(), deadline, &events) => ended,
        };
        let pause = addresses.turn(&ended);
        let reason = format!("{} (the next call goes to {})", ended.reason, addresses.current());
        if events.send(SessionEvent::Closed { reason }).await.is_err() {
            return;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(pause) => (),
        }
    }
}

/// Checks that an address is one that can be called.
pub(super) fn check(address: &str) -> Result<(), String> {
    endpoint(address, CONNECT_DEADLINE).map(drop)
}

/// How one coordinator is called. The only place that makes a channel.
fn endpoint(address: &str, deadline: Duration) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|error| format!("`{address}` is not an address: {}", explain(&error)))?;
    Ok(endpoint
        .connect_timeout(deadline)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_DEADLINE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

/// One stream from its beginning to its end.
async fn converse(address: &str, deadline: Duration, events: &mpsc::Sender<SessionEvent>) -> Ended {
    let unheard = |reason| Ended { reason, ..Ended::default() };
    let channel = match endpoint(address, deadline) {
        Ok(endpoint) => match timeout(deadline, endpoint.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return unheard(explain(&error)),
            Err(_) => return unheard(format!("{address} does not answer")),
        },
        Err(reason) => return unheard(reason),
    };
    let (reports, queued) = mpsc::channel(QUEUED_REPORTS);
    let close = CancellationToken::new();
    // Before the answer: a coordinator may want to hear Hello first.
    let stream = Stream { coordinator: address.to_owned(), reports, close: close.clone() };
    if events.send(SessionEvent::Opened(stream)).await.is_err() {
        return unheard("the agent ends".to_owned());
    }
    let mut was_heard = false;
    let received = tokio::select! {
        ended = receive(channel, deadline, queued, events, &mut was_heard) => ended,
        () = close.cancelled() => Err(Status::cancelled("the agent ended the stream")),
    };
    match received {
        Ok(()) => {
            Ended { reason: "the coordinator ended the stream".to_owned(), was_heard, leader: None }
        }
        Err(status) => {
            let leader = status.metadata().get(LEADER).and_then(|value| value.to_str().ok());
            let leader = leader.map(str::to_owned);
            Ended { reason: status.message().to_owned(), was_heard, leader }
        }
    }
}

/// Passes on orders until there are no more.
async fn receive(
    channel: Channel,
    deadline: Duration,
    queued: mpsc::Receiver<SessionRequest>,
    events: &mpsc::Sender<SessionEvent>,
    was_heard: &mut bool,
) -> Result<(), Status> {
    let mut client = WorkerServiceClient::new(channel);
    let opening = timeout(deadline, client.session(ReceiverStream::new(queued))).await;
    let unanswered = |_| Status::deadline_exceeded("the coordinator does not answer");
    let mut orders = opening.map_err(unanswered)??.into_inner();
    while let Some(order) = orders.message().await? {
        *was_heard = true;
        if events.send(SessionEvent::Order(Box::new(order))).await.is_err() {
            return Err(Status::cancelled("the agent ends"));
        }
    }
    Ok(())
}

/// An error with all of its causes: tonic's own text says only "transport error".
fn explain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
