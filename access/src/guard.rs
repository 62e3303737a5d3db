//! Judges every request before any service sees it: who asks, and whether they may.
//!
//! A layer around all services of a server. What passes carries its [`Identity`] in the request's
//! extensions, and its answer ends early if the identity is withdrawn or expires meanwhile, so
//! that a worker's stream does not outlive its token.

mod limiter;
mod refusal;
mod withdrawn;

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::identity::{Identity, Proof};
use crate::listener::Peer;
use crate::rpc::least_role;
use crate::token::Tokens;
use limiter::Limiter;
use refusal::Counters;
use withdrawn::Watched;

pub use refusal::{Reason, Refusal};

/// How often an answer under way asks the clock whether its identity has expired.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Whom a server lets in.
#[derive(Clone, Debug)]
pub enum Accepts {
    /// Everybody, as an administrator: for one machine's loopback only.
    Anybody,
    /// Who proves an identity, by a certificate that the listener has verified, or else by a token.
    Known { tokens: Option<Tokens> },
}

/// Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Guard {
    inner: Arc<Inner>,
}

struct Inner {
    accepts: Accepts,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    limiter: Mutex<Limiter>,
    counters: Counters,
}

impl Guard {
    /// `clock` judges when a token or a certificate has expired.
    pub fn new(accepts: Accepts, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let (limiter, counters) = (Mutex::default(), Counters::default());
        Self { inner: Arc::new(Inner { accepts, clock: Box::new(clock), limiter, counters }) }
    }

    /// How many requests were refused so far, for every reason.
    pub fn refusals(&self) -> Vec<(Reason, u64)> {
        self.inner.counters.all()
    }

    /// Who asks for `path`, if they may.
    fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<Identity, Refusal> {
        let admitted = self.inner.identify(headers, peer).and_then(|identity| {
            authorize(path, &identity)?;
            Ok(identity)
        });
        if let Err(refusal) = &admitted {
            self.inner.counters.count(refusal.reason());
            tracing::debug!(path, peer = ?peer.and_then(|it| it.address), %refusal, "refused");
        }
        admitted
    }

    /// Waits until the identity is no longer good; forever if it always is.
    async fn withdrawn(self, identity: Identity) -> Refusal {
        let Accepts::Known { tokens } = &self.inner.accepts else {
            return std::future::pending().await;
        };
        let mut tokens = tokens.clone();
        loop {
            let now = (self.inner.clock)();
            let is_listed = tokens.as_ref().is_none_or(|tokens| tokens.still_has(&identity));
            let ended =
                if is_listed { unexpired(&identity, now).err() } else { Some(Refusal::Withdrawn) };
            if let Some(refusal) = ended {
                self.inner.counters.count(refusal.reason());
                tracing::info!(name = identity.name(), %refusal, "ends an answer under way");
                return refusal;
            }
            let left = identity.ends.and_then(|end| end.duration_since(now).ok());
            let pause = left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            let changed = async {
                match &mut tokens {
                    Some(tokens) => tokens.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => (),
                () = tokio::time::sleep(pause) => (),
            }
        }
    }
}

impl Inner {
    fn identify(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Identity, Refusal> {
        let tokens = match &self.accepts {
            Accepts::Anybody => return Ok(Identity::not_asked()),
            Accepts::Known { tokens } => tokens,
        };
        let now = (self.clock)();
        // The handshake has proved it, so there is nothing to guess and nothing to limit.
        if let Some(certificate) = peer.and_then(|peer| peer.certificate.as_ref()) {
            let identity = certificate.clone().map_err(Refusal::Certificate)?;
            return unexpired(&identity, now).map(|()| identity);
        }
        // Looked at before anything is counted: whoever fails at this address, a good token gets in.
        by_token(tokens.as_ref(), headers)
            .and_then(|identity| unexpired(&identity, now).map(|()| identity))
            .map_err(|refusal| {
                let address = peer.and_then(|peer| peer.address).map(|it| it.ip());
                let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
                let has_room = limiter.failed(address, Instant::now());
                if has_room { refusal } else { Refusal::TooManyFailures }
            })
    }
}

fn by_token(tokens: Option<&Tokens>, headers: &HeaderMap) -> Result<Identity, Refusal> {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let value = sent.next().ok_or(Refusal::NoIdentity)?;
    if sent.next().is_some() {
        return Err(Refusal::BadHeader);
    }
    let text = value.to_str().map_err(|_| Refusal::BadHeader)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refusal::BadHeader)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::BadHeader);
    }
    tokens.and_then(|tokens| tokens.owner(token.trim())).ok_or(Refusal::UnknownToken)
}

fn unexpired(identity: &Identity, now: SystemTime) -> Result<(), Refusal> {
    let Some(end) = identity.ends.filter(|end| *end <= now) else { return Ok(()) };
    let (name, end) =
        (identity.name().to_owned(), humantime::format_rfc3339_seconds(end).to_string());
    Err(match identity.proof {
        Proof::Token(_) | Proof::NotAsked => Refusal::ExpiredToken { name, end },
        Proof::Certificate => Refusal::ExpiredCertificate { name, end },
    })
}

fn authorize(path: &str, identity: &Identity) -> Result<(), Refusal> {
    let least = least_role(path).ok_or_else(|| Refusal::UnknownRpc { path: shortened(path) })?;
    if identity.may(least) {
        return Ok(());
    }
    let name = identity.name().to_owned();
    let rpc = path.rsplit('/').next().unwrap_or(path).to_owned();
    Err(Refusal::TooWeak { name, role: identity.role(), rpc, least })
}

/// What a stranger sent comes back only in part.
fn shortened(path: &str) -> String {
    path.chars().take(100).filter(|c| !c.is_control()).collect()
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { inner, guard: self.clone() }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let identity = match self.guard.admit(request.uri().path(), request.headers(), peer) {
            Ok(identity) => identity,
            Err(refusal) => {
                let answer = refusal.status().into_http();
                return Box::pin(std::future::ready(Ok(answer)));
            }
        };
        request.extensions_mut().insert(identity.clone());
        let withdrawn = self.guard.clone().withdrawn(identity.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if identity.proof == Proof::NotAsked {
                return Ok(answer);
            }
            Ok(answer.map(|body| Body::new(Watched::new(body, Box::pin(withdrawn)))))
        })
    }
}
