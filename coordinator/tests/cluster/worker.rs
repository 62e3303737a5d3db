//! What an agent does on its stream, without ranks: it takes orders and says what the test wants.

#![allow(dead_code, reason = "several test programs share this, and none uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clade_proto::v1::session_request::Report;
use clade_proto::v1::session_response::Order;
use clade_proto::v1::worker_service_client::WorkerServiceClient;
use clade_proto::v1::{self, SessionRequest, SessionResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use super::PATIENCE;

/// A stream that was welcomed.
pub(crate) struct Session {
    pub(crate) url: String,
    pub(crate) term: u64,
    reports: mpsc::Sender<SessionRequest>,
    orders: Streaming<SessionResponse>,
    _heart: AbortOnDropHandle<()>,
}

/// One worker over all its streams.
pub(crate) struct Worker {
    name: String,
    slots: u32,
    /// What was ordered and has not exited, by work.
    pub(crate) ranks: BTreeMap<String, v1::LiveRank>,
    sequence: u64,
    /// Orders to stop a rank that it received.
    pub(crate) stops: u32,
    /// Works among `ranks` that were ordered to stop.
    pub(crate) to_stop: BTreeSet<String>,
}

impl Worker {
    pub(crate) fn new(name: &str, slots: u32) -> Self {
        let ranks = BTreeMap::new();
        let to_stop = BTreeSet::new();
        Self { name: name.to_owned(), slots, ranks, sequence: 0, stops: 0, to_stop }
    }

    /// Tries every address, and whichever is named as the leader's, until one welcomes it.
    pub(crate) async fn attach(&self, urls: &[String]) -> Session {
        super::until("a coordinator welcomes the worker", async || {
            for url in urls {
                let refusal = match self.try_attach(url).await {
                    Ok(session) => return Some(session),
                    Err(refusal) => refusal,
                };
                let leader = refusal.metadata().get("clade-leader");
                let Some(leader) = leader.and_then(|it| it.to_str().ok()) else { continue };
                if let Ok(session) = self.try_attach(leader).await {
                    return Some(session);
                }
            }
            None
        })
        .await
    }

    pub(crate) async fn try_attach(&self, url: &str) -> Result<Session, Status> {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let (reports, sent) = mpsc::channel(1024);
        let hello = Report::Hello(v1::Hello {
            worker: self.name.clone(),
            host: "host".to_owned(),
            pid: 1,
            slots: self.slots,
            ranks: self.ranks.values().cloned().collect(),
            protocol: clade_proto::PROTOCOL,
            node: "simulated".to_owned(),
            secret: vec![7; 16],
            ..v1::Hello::default()
        });
        reports.send(report(0, hello)).await.unwrap();
        let opening = WorkerServiceClient::new(channel);
        let mut orders = { opening }.session(ReceiverStream::new(sent)).await?.into_inner();
        let first = tokio::time::timeout(Duration::from_secs(5), orders.message()).await;
        let late = |_| Status::deadline_exceeded("no welcome");
        let first = first.map_err(late)??.ok_or_else(|| Status::unavailable("ended"))?;
        assert!(matches!(first.order, Some(Order::Welcome(_))), "{first:?}");
        let beating = reports.clone();
        let heart = tokio::spawn(async move {
            while beating.send(report(0, Report::Heartbeat(v1::Heartbeat {}))).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let heart = AbortOnDropHandle::new(heart);
        Ok(Session { url: url.to_owned(), term: first.term, reports, orders, _heart: heart })
    }

    /// Takes orders until `is_enough` or the stream's end.
    pub(crate) async fn obey(
        &mut self,
        session: &mut Session,
        is_enough: impl Fn(&Self, &Order) -> bool,
    ) -> Result<(), Status> {
        let obeying = async {
            loop {
                let ended = || Status::unavailable("the stream ended");
                let order = session.orders.message().await?.ok_or_else(ended)?.order.unwrap();
                self.take(&order);
                if is_enough(self, &order) {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, obeying).await.expect("no such order came")
    }

    fn take(&mut self, order: &Order) {
        match order {
            Order::StartRank(start) => {
                let fence = start.fence.clone().unwrap();
                let (rank, slot) = (start.rank, start.slot);
                let live = v1::LiveRank { fence: Some(fence.clone()), rank, slot, pid: 1 };
                if let Some(old) = self.ranks.insert(fence.work, live.clone()) {
                    assert_eq!(old, live, "a running work was ordered under another fence");
                }
            }
            Order::StopRank(stop) => {
                self.stops += 1;
                self.to_stop.insert(stop.fence.clone().unwrap().work);
            }
            Order::Welcome(_)
            | Order::Refused(_)
            | Order::Superseded(_)
            | Order::ShareRendezvous(_)
            | Order::Acknowledge(_) => (),
        }
    }

    /// Says that a work's rank is done, without waiting.
    pub(crate) async fn finish(&mut self, session: &Session, work: &str) -> SessionRequest {
        let counts = [("pairs".to_owned(), 100)].into_iter().collect();
        self.exit(session, work, v1::rank_exited::Outcome::Done(v1::Done { counts })).await
    }

    /// Says how a work's rank ended, without waiting.
    pub(crate) async fn exit(
        &mut self,
        session: &Session,
        work: &str,
        outcome: v1::rank_exited::Outcome,
    ) -> SessionRequest {
        let v1::LiveRank { fence, rank, slot, .. } = self.ranks.remove(work).unwrap();
        self.to_stop.remove(work);
        self.sequence += 1;
        let outcome = Some(outcome);
        let exited = Report::RankExited(v1::RankExited { fence, rank, slot, outcome });
        let request = report(self.sequence, exited);
        session.say(request.clone()).await;
        request
    }

    /// A report that is to be acknowledged.
    pub(crate) fn numbered(&mut self, what: Report) -> SessionRequest {
        self.sequence += 1;
        report(self.sequence, what)
    }

    /// Waits until a report is acknowledged; repeats it on a new stream if the old one ends, as agents do.
    pub(crate) async fn deliver(
        &mut self,
        session: &mut Session,
        urls: &[String],
        request: SessionRequest,
    ) {
        let sequence = request.sequence;
        let is_it = |_: &Self, order: &Order| matches!(order, Order::Acknowledge(it) if it.sequence == sequence);
        while let Err(ended) = self.obey(session, is_it).await {
            eprintln!("the stream ended and the worker attaches again: {}", ended.message());
            *session = self.attach(urls).await;
            session.say(request.clone()).await;
        }
    }
}

impl Session {
    pub(crate) async fn say(&self, request: SessionRequest) {
        self.reports.send(request).await.ok();
    }

    /// Says nothing worth hearing, as fast as it can, until it is cut off; how, and why if it was told.
    pub(crate) async fn flood(mut self) -> (Status, Option<v1::RefusalReason>) {
        let flooding = self.reports.clone();
        let flood = tokio::spawn(async move {
            while flooding.send(report(0, Report::Heartbeat(v1::Heartbeat {}))).await.is_ok() {}
        });
        let _flood = AbortOnDropHandle::new(flood);
        let mut refused = None;
        loop {
            match self.orders.message().await {
                Ok(Some(order)) => {
                    if let Some(Order::Refused(why)) = order.order {
                        refused = Some(why.reason());
                    }
                }
                Ok(None) => return (Status::ok("ended in peace"), refused),
                Err(status) => return (status, refused),
            }
        }
    }
}

fn report(sequence: u64, report: Report) -> SessionRequest {
    SessionRequest { sequence, report: Some(report) }
}

/// Whether a stream ended because its coordinator leads no longer.
pub(crate) fn is_over(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}
