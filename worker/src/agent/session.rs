//! Keeps a stream to the leading coordinator open: connects, passes on what arrives, connects again.
//!
//! Decides nothing; the cluster's handle knows whom to call. What is said over a stream is the
//! agent's business; it gets a sender for each new stream, and its first message there is Hello.

use std::net::IpAddr;
use std::time::Duration;

use clade_access::client::{Cluster, Link, Opened, Turn};
use clade_core::order::Random;
use clade_proto::v1::worker_service_client::WorkerServiceClient;
use clade_proto::v1::{SessionRequest, SessionResponse};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::pace::Pace;
use super::reach;

const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
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
    /// From where this machine reaches the coordinator.
    pub(super) own_address: IpAddr,
    pub(super) reports: mpsc::Sender<SessionRequest>,
    /// Ends this stream; the session then opens another.
    pub(super) close: CancellationToken,
}

/// Runs until `end` or until nobody listens any more.
pub(super) async fn keep(
    cluster: Cluster,
    events: mpsc::Sender<SessionEvent>,
    random: Random,
    end: CancellationToken,
) {
    let mut pace = Pace::new(cluster.urls().len(), random);
    loop {
        let (reason, turn) = tokio::select! {
            () = end.cancelled() => return,
            ended = converse(&cluster, &events, &mut pace) => ended,
        };
        let reason = format!("{reason} (the next call goes to {})", cluster.url());
        if events.send(SessionEvent::Closed { reason }).await.is_err() {
            return;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = sleep(pace.pause(turn)) => (),
        }
    }
}

/// One stream from its beginning to its end; returns why it ended, and what to do then.
async fn converse(
    cluster: &Cluster,
    events: &mpsc::Sender<SessionEvent>,
    pace: &mut Pace,
) -> (String, Turn) {
    let Opened { url, link } = match cluster.next_channel().await {
        Ok(opened) => opened,
        Err(failed) => return (failed.to_string(), Turn::Next),
    };
    let (reports, queued) = mpsc::channel(QUEUED_REPORTS);
    let close = CancellationToken::new();
    // Before the answer: a coordinator may want to hear Hello first.
    let own_address = reach::towards(&url).await;
    let coordinator = url.clone();
    let stream = Stream { coordinator, own_address, reports, close: close.clone() };
    if events.send(SessionEvent::Opened(stream)).await.is_err() {
        return ("the agent ends".to_owned(), Turn::Next);
    }
    let heard = || {
        pace.heard();
        cluster.heard(&url);
    };
    let received = tokio::select! {
        ended = receive(link, queued, events, heard) => ended,
        () = close.cancelled() => Err(Status::cancelled("the agent ended the stream")),
    };
    match received {
        Ok(()) => (format!("{url} ended the stream"), cluster.lost(&url, None)),
        Err(status) => (format!("{url}: {}", status.message()), cluster.lost(&url, Some(&status))),
    }
}

/// Passes on orders until there are no more.
async fn receive(
    link: Link,
    queued: mpsc::Receiver<SessionRequest>,
    events: &mpsc::Sender<SessionEvent>,
    mut heard: impl FnMut(),
) -> Result<(), Status> {
    let mut client = WorkerServiceClient::new(link);
    let opening = timeout(ANSWER_DEADLINE, client.session(ReceiverStream::new(queued))).await;
    let unanswered = |_| Status::deadline_exceeded("the coordinator does not answer");
    let mut orders = opening.map_err(unanswered)??.into_inner();
    while let Some(order) = orders.message().await? {
        heard();
        if events.send(SessionEvent::Order(Box::new(order))).await.is_err() {
            return Err(Status::cancelled("the agent ends"));
        }
    }
    Ok(())
}
