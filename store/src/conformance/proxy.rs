//! Stands between a store and its server, and does what networks and busy servers do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::server::forward;

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Nothing: it is carried out and answered.
    Pass,
    /// It is answered with this status and code, and not carried out.
    Answer(u16, &'static str),
    /// The connection ends before it is carried out.
    CutBefore,
    /// It is carried out, and the connection ends before the answer.
    CutAfter,
    /// It is carried out, and the connection ends in the middle of the answer.
    CutMiddle,
    /// It is carried out, and then nothing happens.
    HangAfter,
}

/// A request as the plan sees it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Counts all requests from 0.
    pub(super) number: u64,
    /// How often this very request came before: same method, target, range and body.
    pub(super) repeat: u32,
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) fault: Fault,
}

type Plan = dyn Fn(&Seen) -> Fault + Send + Sync;

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    /// Ends with its owner.
    _serving: JoinSet<()>,
}

struct Shared {
    upstream: SocketAddr,
    plan: Box<Plan>,
    /// Loses the condition of a creation on the way.
    is_forgetful: bool,
    log: Mutex<Vec<Seen>>,
    repeats: Mutex<BTreeMap<String, u32>>,
}

impl Proxy {
    pub(super) async fn start(
        upstream: SocketAddr,
        plan: impl Fn(&Seen) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self::begin(upstream, Box::new(plan), false).await
    }

    /// Makes a server out of the one behind it that knows no conditions.
    pub(super) async fn start_forgetful(upstream: SocketAddr) -> Self {
        Self::begin(upstream, Box::new(|_: &Seen| Fault::Pass), true).await
    }

    async fn begin(upstream: SocketAddr, plan: Box<Plan>, is_forgetful: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, repeats) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { upstream, plan, is_forgetful, log, repeats });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, _serving: serving }
    }

    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Requests so far, in the form `PUT PUT GET`.
    pub(super) fn methods(&self) -> String {
        self.seen().iter().map(|seen| seen.method.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// How many requests met which fate.
    pub(super) fn tally(&self) -> BTreeMap<Fault, usize> {
        let mut tally = BTreeMap::new();
        for seen in self.seen() {
            *tally.entry(seen.fault).or_default() += 1;
        }
        tally
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| handle(request, &shared));
            // A connection that is cut ends in an error, as it should.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A connection that is to be cut.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

async fn handle(request: Request<Incoming>, shared: &Shared) -> Result<Response<Answer>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let range = head.headers.get("range").and_then(|range| range.to_str().ok()).unwrap_or("");
    let what = format!("{} {} {range} {}", head.method, head.uri, crate::digest(&body));
    let seen = shared.note(what, head.method.to_string(), head.uri.to_string());
    match seen.fault {
        Fault::CutBefore => return Err(Cut),
        Fault::Answer(status, code) => return Ok(refusal(status, code)),
        Fault::Pass | Fault::CutAfter | Fault::CutMiddle | Fault::HangAfter => (),
    }
    let mut request = Request::from_parts(head, Full::new(body));
    if shared.is_forgetful {
        request.headers_mut().remove("if-none-match");
    }
    let (head, body) = forward(shared.upstream, request).await.map_err(|_| Cut)?.into_parts();
    let whole = body.len();
    match seen.fault {
        Fault::Pass => Ok(Response::from_parts(head, Answer { left: body, then_cut: false })),
        Fault::CutMiddle if whole > 1 => {
            let left = body.slice(..whole / 2);
            Ok(Response::from_parts(head, Answer { left, then_cut: true }))
        }
        Fault::HangAfter => std::future::pending().await,
        Fault::CutMiddle | Fault::CutAfter | Fault::CutBefore | Fault::Answer(..) => Err(Cut),
    }
}

impl Shared {
    fn note(&self, what: String, method: String, target: String) -> Seen {
        let mut repeats = self.repeats.lock().unwrap();
        let mut log = self.log.lock().unwrap();
        let repeat = repeats.entry(what).and_modify(|repeat| *repeat += 1).or_insert(0);
        let number = log.len() as u64;
        let mut seen = Seen { number, repeat: *repeat, method, target, fault: Fault::Pass };
        seen.fault = (self.plan)(&seen);
        log.push(seen.clone());
        seen
    }
}

fn refusal(status: u16, code: &str) -> Response<Answer> {
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Made by the proxy</Message></Error>"
    );
    let answer = Answer { left: Bytes::from(text), then_cut: false };
    Response::builder().status(status).body(answer).unwrap()
}

/// The body of an answer, which may break off.
struct Answer {
    left: Bytes,
    then_cut: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let left = std::mem::take(&mut self.left);
        if !left.is_empty() {
            Poll::Ready(Some(Ok(Frame::data(left))))
        } else if std::mem::take(&mut self.then_cut) {
            Poll::Ready(Some(Err(Cut)))
        } else {
            Poll::Ready(None)
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && !self.then_cut
    }

    fn size_hint(&self) -> SizeHint {
        if self.then_cut {
            SizeHint::default()
        } else {
            SizeHint::with_exact(self.left.len() as u64)
        }
    }
}

/// A plan drawn from `seed`: three requests in ten meet a fault, but never more than twice in a row.
pub(super) fn drawn(seed: u64) -> impl Fn(&Seen) -> Fault + Send + Sync {
    let unlucky: Mutex<BTreeMap<String, u32>> = Mutex::default();
    move |seen| {
        let mut unlucky = unlucky.lock().unwrap();
        let in_a_row = unlucky.entry(format!("{} {}", seen.method, seen.target)).or_default();
        let fault = if *in_a_row < 2 { draw(seed, seen.number) } else { Fault::Pass };
        *in_a_row = if fault == Fault::Pass { 0 } else { *in_a_row + 1 };
        fault
    }
}

fn draw(seed: u64, number: u64) -> Fault {
    let drawn = crate::digest(format!("{seed} {number}").as_bytes()).0;
    match u16::from_le_bytes([drawn[0], drawn[1]]) % 1000 {
        0..70 => Fault::Answer(500, "InternalError"),
        70..140 => Fault::Answer(503, "SlowDown"),
        140..190 => Fault::CutBefore,
        190..240 => Fault::CutAfter,
        240..290 => Fault::CutMiddle,
        290..294 => Fault::HangAfter,
        _ => Fault::Pass,
    }
}
