//! A small HTTP server for Prometheus and the kubelet: three paths, reading only.
//!
//! It is bounded: so many connections, so long each, so many bytes of a request's head. It asks
//! nobody who they are, since it tells nothing but counts; keep it inside the cluster.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Metrics, Verdict};

/// Connections served at a time; the next ones wait in the listener's queue.
pub(super) const CONNECTIONS: usize = 64;

/// A connection carries one request, and has this long from first to last byte.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// The smallest that hyper takes.
const HEAD_BYTES: usize = 8192;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves until `shutdown` fires.
pub(crate) async fn serve(listener: TcpListener, metrics: Metrics, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    debug!(%error, "a connection for metrics ended badly");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, metrics.clone()));
                }
                // Aborted by its peer, or file descriptors are short: the listener itself goes on.
                Err(error) => {
                    debug!(%error, "cannot accept a connection for metrics; tries again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// Serves the one request of a connection.
async fn converse(stream: TcpStream, metrics: Metrics) {
    let answering = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &metrics, Instant::now());
        async move { Ok::<_, Infallible>(response) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answering);
    match timeout(DEADLINE, conversation).await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => debug!(%error, "a request for metrics was not understood"),
        Err(_) => debug!("a request for metrics took too long"),
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, now: Instant) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is served\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => respond(StatusCode::OK, OPEN_METRICS, metrics.text()),
        "/healthz" => judged(metrics.health().alive(now)),
        "/readyz" => judged(metrics.health().ready(now)),
        _ => respond(StatusCode::NOT_FOUND, PLAIN, "try /metrics, /healthz or /readyz\n"),
    }
}

fn judged(verdict: Verdict) -> Response<Full<Bytes>> {
    match verdict {
        Verdict::Good(why) => respond(StatusCode::OK, PLAIN, format!("{why}\n")),
        Verdict::Bad(why) => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
    }
}

fn respond(
    status: StatusCode,
    content: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}
