//! A client of one coordinator, or of several of which one leads.
//!
//! It finds out who leads by asking: a standby answers `UNAVAILABLE` and may name the leader in the
//! metadata [`LEADER`]. One that answers from its copy of the state names the leader as well, who knows
//! more and is asked instead if it can be reached. It says who asks, by a token or a certificate, and never over a connection
//! on which others could read the token.

mod address;
mod bearer;
mod candidates;
mod credentials;
mod fault;
mod flags;
mod patience;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use address::Address;
use candidates::Candidates;

pub use bearer::Bearer;
pub use candidates::Turn;
pub use credentials::Credentials;
pub use fault::{CallFailed, Fault};
pub use flags::ConnectFlags;
pub use patience::Patience;

/// The metadata in which a standby names the leader's address, as a URL.
pub const LEADER: &str = "clade-leader";

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A report or all logs of a run are read from the store: more than a moment, less than this.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// A leader that a standby's answer named has less time: what the standby said would do.
const LEADER_LIMIT: Duration = Duration::from_secs(3);
/// For so long a leader that could not be reached is not tried in a standby's place.
const SHUNNED: Duration = Duration::from_secs(30);
/// A leader that was cut off is noticed while the next one still waits for its workers.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(3);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(3);

/// Addresses asked in one round, against hints that lead in a circle.
const MOST_HOPS: usize = 32;

/// A connection that says who asks.
pub type Link = InterceptedService<Channel, Bearer>;

/// Why a client cannot even try.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("`{url}` is no coordinator's address: {why}; write --coordinator https://HOST:PORT")]
    BadAddress { url: String, why: String },

    #[error("no coordinator is named; write --coordinator https://HOST:PORT")]
    NoAddress,

    #[error("cannot read {what} {path}: {source}")]
    Unreadable { what: &'static str, path: String, source: std::io::Error },

    #[error("{origin} holds no token: it is one line such as `clade_…`, made by `clade token new`")]
    NotAToken { origin: String },

    #[error("cannot speak TLS with the files given: {why}; look at --ca, --cert and --key")]
    Tls { why: String },

    #[error(
        "will not send the token to {url} for all to read: name it https://, or leave the token away \
         (unset CLADE_TOKEN)"
    )]
    TokenInClear { url: String },
}

/// A cheap handle on the coordinators of one cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    candidates: Mutex<Candidates>,
    credentials: Mutex<Credentials>,
    /// Each connects when it is first used, and again when it must. By [`Address::url`].
    links: Mutex<BTreeMap<String, Link>>,
    /// A leader that cannot be reached from here, and since when that is known.
    shunned: Mutex<Option<(String, tokio::time::Instant)>>,
}

/// A fresh connection for a stream, and where it leads.
#[derive(Debug)]
pub struct Opened {
    pub url: String,
    pub link: Link,
}

impl Cluster {
    /// Reads what the flags name. The first call connects.
    pub fn from_flags(flags: &ConnectFlags) -> Result<Self, ConnectError> {
        Self::new(&flags.coordinator, Credentials::read(flags)?)
    }

    /// Names the coordinators, at least one. The first call connects.
    pub fn new(urls: &[String], credentials: Credentials) -> Result<Self, ConnectError> {
        let given = urls.iter().map(|url| Address::parse(url)).collect::<Result<Vec<_>, _>>()?;
        for address in &given {
            // Now, not when it is needed: a file that is wrong is told at once.
            link(address, &credentials)?;
        }
        let candidates = Candidates::new(given).ok_or(ConnectError::NoAddress)?;
        Ok(Self {
            shared: Arc::new(Shared {
                candidates: Mutex::new(candidates),
                credentials: Mutex::new(credentials),
                links: Mutex::default(),
                shunned: Mutex::default(),
            }),
        })
    }

    /// The addresses that were given.
    pub fn urls(&self) -> Vec<String> {
        locked(&self.shared.candidates).urls()
    }

    /// Where the next call goes first: the leader as far as this client knows.
    pub fn url(&self) -> String {
        locked(&self.shared.candidates).aim().url().to_owned()
    }

    /// Asks the leader; looks for it while nobody says to be it, as long as `patience` goes.
    ///
    /// The request may be made several times, so it must be harmless to repeat.
    pub async fn call<T, F>(
        &self,
        patience: Patience,
        request: impl FnMut(Link) -> F,
    ) -> Result<T, CallFailed>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(CALL_LIMIT, patience, request).await
    }

    /// The same for a request that takes another time than most: each try has as long as `limit`.
    pub async fn call_within<T, F>(
        &self,
        limit: Duration,
        patience: Patience,
        mut request: impl FnMut(Link) -> F,
    ) -> Result<T, CallFailed>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let began = tokio::time::Instant::now();
        let mut rounds = 0;
        loop {
            let failed = match self.round(limit, &mut request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let pause = patience.pause(rounds, began.elapsed(), failed.fault());
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failed),
            }
            rounds += 1;
        }
    }

    /// Asks every address once, and where hints lead.
    async fn round<T, F>(
        &self,
        limit: Duration,
        request: &mut impl FnMut(Link) -> F,
    ) -> Result<T, CallFailed>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut asked = Vec::new();
        let mut told: Option<CallFailed> = None;
        loop {
            let address = locked(&self.shared.candidates).aim().clone();
            let status = match self.ask(&address, limit, request).await {
                Ok(answer) => {
                    return Ok(self.prefer_leader(&address, limit, answer, request).await);
                }
                Err(status) => status,
            };
            let failed = CallFailed::new(address.url(), status);
            if !failed.fault().may_lie_elsewhere() {
                return Err(failed);
            }
            self.lost(address.url(), Some(failed.status()));
            asked.push(address.url().to_owned());
            let worst = match told.take() {
                Some(earlier) if earlier.fault() >= failed.fault() => earlier,
                Some(_) | None => failed,
            };
            let is_over = asked.len() > MOST_HOPS;
            if is_over || !locked(&self.shared.candidates).go_on(&asked) {
                return Err(worst);
            }
            told = Some(worst);
        }
    }

    /// Asks one coordinator once.
    async fn ask<T, F>(
        &self,
        address: &Address,
        limit: Duration,
        request: &mut impl FnMut(Link) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let link = self.link(address);
        let link = link.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let late = |_| Status::deadline_exceeded(format!("no answer within {limit:?}"));
        tokio::time::timeout(limit, request(link)).await.map_err(late)?
    }

    /// The answer of the leader that a standby's `answer` names, or that one if it cannot be had.
    async fn prefer_leader<T, F>(
        &self,
        address: &Address,
        limit: Duration,
        answer: Response<T>,
        request: &mut impl FnMut(Link) -> F,
    ) -> T
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        locked(&self.shared.candidates).answered(address.url());
        let named = answer.metadata().get(LEADER);
        let named = named.and_then(|value| Address::parse(value.to_str().ok()?).ok());
        let mirrored = answer.into_inner();
        let Some(leader) = named.filter(|it| it != address && (it.is_tls() || !address.is_tls()))
        else {
            return mirrored;
        };
        let shunned = locked(&self.shared.shunned).clone();
        if shunned.is_some_and(|(url, since)| url == leader.url() && since.elapsed() < SHUNNED) {
            return mirrored;
        }
        match self.ask(&leader, limit.min(LEADER_LIMIT), request).await {
            Ok(answer) => {
                let mut candidates = locked(&self.shared.candidates);
                candidates.failed(address.url(), Some(leader.clone()));
                candidates.answered(leader.url());
                answer.into_inner()
            }
            Err(_) => {
                let now = tokio::time::Instant::now();
                *locked(&self.shared.shunned) = Some((leader.url().to_owned(), now));
                mirrored
            }
        }
    }

    /// Connects anew for a stream, to the leader as far as this client knows.
    ///
    /// Reads the files of the credentials again first, since they may have been renewed. After a
    /// failure the next call goes to the next address. Say how it goes on with [`Cluster::heard`]
    /// and [`Cluster::lost`].
    pub async fn next_channel(&self) -> Result<Opened, CallFailed> {
        self.renew();
        let address = locked(&self.shared.candidates).aim().clone();
        let failed = |status| {
            self.lost(address.url(), None);
            CallFailed::new(address.url(), status)
        };
        let prepared = {
            let credentials = locked(&self.shared.credentials);
            endpoint(&address, &credentials).map(|it| (it, credentials.bearer()))
        };
        let (endpoint, bearer) =
            prepared.map_err(|error| failed(Status::failed_precondition(error.to_string())))?;
        // The endpoint's own limit is for TCP alone; this one is for the handshake as well.
        let connecting = tokio::time::timeout(CONNECT_LIMIT * 2, endpoint.connect());
        let channel = match connecting.await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(failed(Status::from_error(Box::new(error)))),
            Err(_) => return Err(failed(Status::deadline_exceeded("no connection in time"))),
        };
        let link = InterceptedService::new(channel, bearer);
        Ok(Opened { url: address.url().to_owned(), link })
    }

    /// Remembers that the coordinator at `url` took the stream.
    pub fn heard(&self, url: &str) {
        locked(&self.shared.candidates).answered(url);
    }

    /// Remembers that the coordinator at `url` did not take the stream or ended it, and why.
    ///
    /// [`Turn::Leader`]: it named another, so try again at once. [`Turn::Next`]: wait a little first.
    pub fn lost(&self, url: &str, status: Option<&Status>) -> Turn {
        let hint = status.and_then(|status| status.metadata().get(LEADER));
        let hint = hint.and_then(|value| Address::parse(value.to_str().ok()?).ok());
        let mut candidates = locked(&self.shared.candidates);
        // Who answers over TLS cannot send us to where anybody may listen.
        let hint = hint.filter(|hint| hint.is_tls() || !candidates.aim().is_tls());
        candidates.failed(url, hint)
    }

    fn link(&self, address: &Address) -> Result<Link, ConnectError> {
        let mut links = locked(&self.shared.links);
        if let Some(link) = links.get(address.url()) {
            return Ok(link.clone());
        }
        let link = link(address, &locked(&self.shared.credentials))?;
        // Hints may name ever new addresses.
        if links.len() > 64 {
            links.clear();
        }
        links.insert(address.url().to_owned(), link.clone());
        Ok(link)
    }

    /// Takes the credentials' files as they are now. What cannot be read stays as it was.
    fn renew(&self) {
        let mut credentials = locked(&self.shared.credentials);
        match credentials.again() {
            Ok(None) => (),
            Ok(Some(newer)) => {
                *credentials = newer;
                drop(credentials);
                locked(&self.shared.links).clear();
            }
            Err(error) => tracing::warn!(%error, "goes on with the credentials read before"),
        }
    }
}

fn endpoint(address: &Address, credentials: &Credentials) -> Result<Endpoint, ConnectError> {
    if credentials.has_token() && !address.is_private() {
        return Err(ConnectError::TokenInClear { url: address.url().to_owned() });
    }
    let endpoint = address
        .endpoint()?
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_LIMIT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    if !address.is_tls() {
        return Ok(endpoint);
    }
    endpoint
        .tls_config(credentials.tls().timeout(CONNECT_LIMIT))
        .map_err(|error| ConnectError::Tls { why: fault::chain(&error) })
}

fn link(address: &Address, credentials: &Credentials) -> Result<Link, ConnectError> {
    let channel = endpoint(address, credentials)?.connect_lazy();
    Ok(InterceptedService::new(channel, credentials.bearer()))
}

/// Nothing that holds these locks can leave them half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
