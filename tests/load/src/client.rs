//! Many workers in one process, each with a connection of its own: they beat once a second, do whatever
//! they are ordered as if it took a few seconds, and time how long their reports take to be saved and
//! acknowledged, and until the next order comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clade_core::order::Random;
use clade_proto::v1::session_request::Report;
use clade_proto::v1::session_response::Order;
use clade_proto::v1::worker_service_client::WorkerServiceClient;
use clade_proto::v1::{self, SessionRequest};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

#[derive(Args, Debug)]
pub(crate) struct ClientArgs {
    #[arg(long)]
    coordinator: String,
    /// Number of the first worker.
    #[arg(long)]
    first: u32,
    #[arg(long)]
    count: u32,
    /// Seconds from the start to the end.
    #[arg(long)]
    seconds: u64,
    /// Seconds at the end in which latencies count.
    #[arg(long)]
    measured: u64,
}

/// What a process of clients tells its parent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Workers whose stream was open at the end.
    pub(crate) connected: u64,
    pub(crate) orders: u64,
    /// Microseconds from a report to its acknowledgement.
    pub(crate) acknowledged: Vec<u64>,
    /// Microseconds from the end of a job to the order that starts the next one on its seat.
    pub(crate) ordered: Vec<u64>,
    /// Streams that ended before their time, with why.
    pub(crate) broken: BTreeMap<String, u64>,
}

/// What one worker timed, in microseconds.
#[derive(Default)]
struct Times {
    acknowledged: Vec<u64>,
    ordered: Vec<u64>,
}

struct Shared {
    begins: Instant,
    ends: Instant,
    orders: AtomicU64,
}

impl ClientArgs {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let told = runtime.block_on(self.work())?;
        super::mark::say(format_args!("{}", serde_json::to_string(&told)?));
        Ok(())
    }

    async fn work(&self) -> anyhow::Result<Told> {
        let ends = Instant::now() + Duration::from_secs(self.seconds);
        let begins = ends - Duration::from_secs(self.measured);
        let shared = Arc::new(Shared { begins, ends, orders: AtomicU64::new(0) });
        let endpoint = Endpoint::from_shared(self.coordinator.clone())?
            .connect_timeout(Duration::from_secs(20))
            .http2_keep_alive_interval(Duration::from_secs(3))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let mut workers = JoinSet::new();
        for number in self.first..self.first + self.count {
            let (endpoint, shared) = (endpoint.clone(), Arc::clone(&shared));
            workers.spawn(async move { worker(endpoint, number, &shared).await });
            // A fleet does not come in one instant either.
            sleep(Duration::from_micros(1_500)).await;
        }
        let mut told = Told::default();
        while let Some(ended) = workers.join_next().await {
            match ended.context("a worker panicked")? {
                Ok(times) => {
                    told.connected += 1;
                    told.acknowledged.extend(times.acknowledged);
                    told.ordered.extend(times.ordered);
                }
                Err(error) => *told.broken.entry(format!("{error:#}")).or_default() += 1,
            }
        }
        told.orders = shared.orders.load(Ordering::Relaxed);
        Ok(told)
    }
}

/// One worker from its first word to the end of the measurement.
async fn worker(endpoint: Endpoint, number: u32, shared: &Shared) -> anyhow::Result<Times> {
    let mut random = Random::new(u64::from(number));
    let channel = endpoint.connect().await.context("connecting")?;
    let (reports, sent) = mpsc::channel(64);
    let name = format!("load-{number:05}");
    let hello = Report::Hello(v1::Hello {
        worker: name.clone(),
        node: name,
        host: "load".to_owned(),
        pid: number,
        slots: 1,
        protocol: clade_proto::PROTOCOL,
        secret: vec![7; 16],
        ..v1::Hello::default()
    });
    reports.send(SessionRequest { sequence: 0, report: Some(hello) }).await?;
    let opening = WorkerServiceClient::new(channel).session(ReceiverStream::new(sent)).await;
    let mut orders = opening.context("opening a stream")?.into_inner();
    let mut beats = interval(Duration::from_secs(1));
    let mut busy: Option<(tokio::time::Instant, v1::StartRank)> = None;
    let (mut sequence, mut asked, mut times) = (0, BTreeMap::new(), Times::default());
    let mut free_since: Option<Instant> = None;
    let ends = tokio::time::Instant::from_std(shared.ends);
    loop {
        let done_at = busy.as_ref().map_or(ends, |(at, _)| *at);
        tokio::select! {
            () = sleep_until(ends) => return Ok(times),
            () = sleep_until(done_at), if busy.is_some() => {
                let Some((_, start)) = busy.take() else { continue };
                free_since = Some(Instant::now());
                for report in results(&start) {
                    sequence += 1;
                    asked.insert(sequence, Instant::now());
                    reports.send(SessionRequest { sequence, report: Some(report) }).await?;
                }
            }
            _ = beats.tick() => {
                let beat = Some(Report::Heartbeat(v1::Heartbeat {}));
                reports.send(SessionRequest { sequence: 0, report: beat }).await?;
            }
            order = orders.message() => {
                let order = order.context("the stream broke")?.context("the stream ended")?;
                match order.order {
                    Some(Order::StartRank(start)) => {
                        shared.orders.fetch_add(1, Ordering::Relaxed);
                        // These jobs wait from the beginning; those of later stages are made by the last
                        // of these, for which nobody but the jobs is to blame.
                        let waited = start.fence.as_ref().is_some_and(|it| it.work.starts_with("index."));
                        let since = free_since.take().filter(|at| waited && *at >= shared.begins);
                        if let Some(at) = since {
                            times.ordered.push(u64::try_from(at.elapsed().as_micros())?);
                        }
                        let lasts = Duration::from_millis(4_000 + random.below(12_000));
                        busy = Some((tokio::time::Instant::now() + lasts, start));
                    }
                    Some(Order::Acknowledge(v1::Acknowledge { sequence })) => {
                        let at: Option<Instant> = asked.remove(&sequence);
                        if let Some(at) = at.filter(|at| *at >= shared.begins) {
                            times.acknowledged.push(u64::try_from(at.elapsed().as_micros())?);
                        }
                    }
                    Some(
                        Order::Welcome(_)
                        | Order::Superseded(_)
                        | Order::StopRank(_)
                        | Order::ShareRendezvous(_)
                        | Order::Refused(_),
                    )
                    | None => (),
                }
            }
        }
    }
}

/// What a rank has to say for itself once its time is over.
fn results(start: &v1::StartRank) -> Vec<Report> {
    let v1::StartRank { fence, rank, slot, .. } = start.clone();
    let counts = [("pairs".to_owned(), 100)].into_iter().collect();
    let outcome = Some(v1::rank_exited::Outcome::Done(v1::Done { counts }));
    vec![Report::RankExited(v1::RankExited { fence, rank, slot, outcome })]
}
