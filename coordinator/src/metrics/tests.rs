//! Asked as Prometheus and the kubelet ask: over TCP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Kept, Metrics, Outcome, serve};

struct Served {
    metrics: Metrics,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new(&["one_rank_per_seat", "whole_gangs"]);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, metrics.clone(), shutdown.clone()));
        Self { metrics, address, shutdown, serving }
    }

    /// Sends `head` and reads to the end of the connection.
    async fn send(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that has read enough may hang up before it has read all.
        stream.write_all(head.as_bytes()).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: coordinator\r\n\r\n")).await
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

fn ago(seconds: u64) -> Instant {
    Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap()
}

#[tokio::test]
async fn what_is_measured_is_scraped_under_its_name_and_label() {
    let served = Served::start().await;
    let Served { metrics, .. } = &served;
    metrics.event("worker_attached", Duration::from_micros(30));
    metrics.event("worker_attached", Duration::from_millis(3));
    metrics.action("start_rank");
    metrics.refusal("superseded");
    metrics.gang_left("drained", Kept::All);
    metrics.gang_left("drained", Kept::All);
    metrics.gang_left("drained", Kept::Less);
    metrics.gang_left("preempted", Kept::Nothing);
    metrics.invariant_violated("whole_gangs");
    metrics.workers(&[("attached", 3), ("detached", 1)]);
    metrics.works(&[("waiting", 7), ("running", 2)]);
    metrics.workers(&[("attached", 4), ("detached", 0)]);
    metrics.seats(3, Duration::from_millis(86_400_900));
    metrics.transaction(Outcome::Committed, 40, Duration::from_millis(2));
    metrics.transaction(Outcome::Unknown, 3, Duration::from_secs(60));
    metrics.transaction(Outcome::Refused, 1, Duration::from_millis(1));
    metrics.access_refused("expired");
    metrics.leads(12, Instant::now());

    let scraped = served.get("/metrics").await;
    assert!(scraped.starts_with("HTTP/1.1 200 "), "{scraped}");
    assert!(scraped.contains("content-type: application/openmetrics-text; version=1.0.0"));
    for line in [
        "clade_schedule_events_total{event=\"worker_attached\"} 2",
        "clade_schedule_event_duration_seconds_count 2",
        "clade_schedule_event_duration_seconds_bucket{le=\"0.00004\"} 1",
        "clade_schedule_actions_total{action=\"start_rank\"} 1",
        "clade_schedule_refusals_total{reason=\"superseded\"} 1",
        "clade_schedule_gangs_left_total{why=\"drained\",outcome=\"saved\"} 2",
        "clade_schedule_gangs_left_total{why=\"drained\",outcome=\"not_saved\"} 1",
        "clade_schedule_gangs_left_total{why=\"preempted\",outcome=\"nothing_to_save\"} 1",
        "clade_schedule_invariant_violations_total{invariant=\"whole_gangs\"} 1",
        "clade_schedule_workers{phase=\"attached\"} 4",
        "clade_schedule_workers{phase=\"detached\"} 0",
        "clade_schedule_works{phase=\"waiting\"} 7",
        "clade_schedule_works{phase=\"running\"} 2",
        "clade_schedule_seat_failures 3",
        "clade_schedule_seat_time_seconds 86400",
        "clade_state_transaction_duration_seconds_count{outcome=\"committed\"} 1",
        "clade_state_transaction_duration_seconds_count{outcome=\"refused\"} 1",
        "clade_state_transaction_duration_seconds_sum{outcome=\"unknown\"} 60.0",
        "clade_state_transaction_keys_bucket{le=\"2.0\"} 1",
        "clade_state_transaction_keys_bucket{le=\"50.0\"} 3",
        "clade_access_refusals_total{reason=\"expired\"} 1",
        "clade_leadership_is_leader 1",
        "clade_leadership_term 12",
    ] {
        assert!(scraped.lines().any(|it| it == line), "no line `{line}` in:\n{scraped}");
    }
    assert!(scraped.ends_with("# EOF\n"), "{scraped}");
}

#[tokio::test]
async fn an_invariant_that_never_broke_is_shown_as_zero_and_so_is_a_gang_that_never_left() {
    let served = Served::start().await;
    let scraped = served.get("/metrics").await;
    for why in ["rank_gone", "run_stopping", "preempted", "drained", "device_withdrawn", "widened"]
    {
        let line =
            format!("clade_schedule_gangs_left_total{{why=\"{why}\",outcome=\"not_saved\"}} 0");
        assert!(scraped.contains(&line), "no `{line}` in:\n{scraped}");
    }
    for invariant in ["one_rank_per_seat", "whole_gangs"] {
        let line =
            format!("clade_schedule_invariant_violations_total{{invariant=\"{invariant}\"}} 0");
        assert!(scraped.contains(&line), "no `{line}` in:\n{scraped}");
    }
}

#[tokio::test]
async fn a_leader_is_healthy_while_its_loop_comes_around_and_not_after() {
    let served = Served::start().await;
    served.metrics.leads(1, ago(60));
    assert_eq!(served.status("/healthz").await, 503, "its loop stands still for a minute");
    assert_eq!(served.status("/readyz").await, 503);
    served.metrics.ticked(Instant::now());
    assert_eq!(served.status("/healthz").await, 200);
    assert_eq!(served.status("/readyz").await, 200);
    served.metrics.ticked(ago(11));
    let answer = served.get("/healthz").await;
    assert!(answer.contains("leads, but its loop stands still for 11"), "{answer}");
    served.metrics.ticked(ago(8));
    assert_eq!(served.status("/healthz").await, 200, "10 s are allowed");
}

#[tokio::test]
async fn a_leader_that_waits_for_its_store_is_not_asked_and_not_restarted() {
    let served = Served::start().await;
    served.metrics.leads(1, ago(60));
    served.metrics.waits(Instant::now());
    assert_eq!(served.status("/healthz").await, 200, "a successor would wait just so");
    let answer = served.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("leads, and waits for the state store for 60"), "{answer}");
    served.metrics.ticked(Instant::now());
    served.metrics.waits(Instant::now());
    assert_eq!(served.status("/readyz").await, 200, "a moment is nothing");
    served.metrics.ticked(ago(60));
    served.metrics.waits(ago(11));
    assert_eq!(served.status("/healthz").await, 503, "nor does it wait any more: it stands still");
}

#[tokio::test]
async fn a_follower_with_an_old_copy_is_not_asked_and_not_restarted() {
    let served = Served::start().await;
    assert_eq!(served.status("/readyz").await, 503, "it has not found its leader yet");
    assert_eq!(served.status("/healthz").await, 200);
    served.metrics.follows(4, Instant::now());
    assert_eq!(served.status("/readyz").await, 200);
    served.metrics.follows(4, ago(11));
    assert_eq!(served.status("/readyz").await, 503);
    assert_eq!(served.status("/healthz").await, 200);
}

#[tokio::test]
async fn who_lost_the_lead_does_not_get_it_back_by_a_late_tick() {
    let served = Served::start().await;
    served.metrics.leads(4, Instant::now());
    served.metrics.lost_the_lead();
    served.metrics.ticked(Instant::now());
    assert_eq!(served.status("/readyz").await, 503);
    let scraped = served.get("/metrics").await;
    assert!(scraped.contains("clade_leadership_is_leader 0"), "{scraped}");
    served.metrics.follows(5, Instant::now());
    let scraped = served.get("/metrics").await;
    assert!(scraped.contains("clade_leadership_is_leader 0"), "{scraped}");
    assert!(scraped.contains("clade_leadership_term 5"), "{scraped}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_and_said_why() {
    let served = Served::start().await;
    assert_eq!(served.status("/").await, 404);
    assert_eq!(served.status("/metrics/../healthz").await, 404);
    let answer =
        served.send("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("allow: GET, HEAD"), "{answer}");
    let answer = served.send("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn noise_and_endless_heads_are_turned_away_and_the_next_caller_is_served() {
    let served = Served::start().await;
    let answer = served.send("\u{16}\u{3}\u{1} not HTTP at all\r\n\r\n").await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let head = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let answer = served.send(&head).await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(served.status("/healthz").await, 200);
}

/// Time is paused: it leaps to the next timer whenever nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn silent_callers_are_hung_up_on_so_that_the_next_one_is_served() {
    let served = Served::start().await;
    let before = tokio::time::Instant::now();
    let mut silent = Vec::new();
    for _ in 0..super::server::CONNECTIONS {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET /metrics HTT").await.unwrap();
        silent.push(stream);
    }
    assert_eq!(served.status("/healthz").await, 200);
    assert!(before.elapsed() >= super::server::DEADLINE, "more are served than were to be");
    assert!(before.elapsed() < 2 * super::server::DEADLINE, "it waited {:?}", before.elapsed());
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    }
}

#[tokio::test]
async fn shutting_down_ends_the_server() {
    let served = Served::start().await;
    served.shutdown.cancel();
    served.serving.await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "still listening");
}
