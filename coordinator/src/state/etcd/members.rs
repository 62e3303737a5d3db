//! The members of an etcd cluster, each with a connection of its own.
//!
//! One balanced connection to all would pick members by load, and a member that is stopped or cut
//! off looks idle. So requests go to one member until it fails or is late, then to the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::trouble::Trouble;
use crate::state::options::EtcdPlace;

/// How long one member may take over one request.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// Cheap to share; connects when it is first asked.
pub(super) struct Members {
    place: EtcdPlace,
    urls: Vec<String>,
    clients: Mutex<Vec<Option<Client>>>,
    current: AtomicUsize,
}

impl Members {
    pub(super) fn new(place: &EtcdPlace) -> Self {
        let urls = place.urls.clone();
        let clients = Mutex::new(vec![None; urls.len()]);
        Self { place: place.clone(), urls, clients, current: AtomicUsize::new(0) }
    }

    /// How to connect now: certificates are renewed while this process runs.
    fn options(&self) -> Result<ConnectOptions, Error> {
        let EtcdPlace { urls: _, prefix: _, ca, identity, user } = &self.place;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(1))
            // Etcd hangs up on whoever pings more often than every 5 s, or while nothing is asked.
            .with_keep_alive(Duration::from_secs(7), Duration::from_secs(2))
            // A member cut off from the others says so, instead of keeping watchers waiting.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if ca.is_some() || identity.is_some() {
            let mut tls = TlsOptions::new();
            if let Some(ca) = ca {
                tls = tls.ca_certificate(Certificate::from_pem(std::fs::read(ca)?));
            }
            if let Some((cert, key)) = identity {
                tls = tls.identity(Identity::from_pem(std::fs::read(cert)?, std::fs::read(key)?));
            }
            options = options.with_tls(tls);
        }
        if let Some((name, password)) = user {
            options = options.with_user(name, password);
        }
        Ok(options)
    }

    pub(super) fn all(&self) -> String {
        self.urls.join(",")
    }

    /// Asks the current member once, within `deadline`. After trouble the next one is current.
    pub(super) async fn ask<T, F>(
        &self,
        deadline: Duration,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let at = self.current.load(Ordering::Relaxed) % self.urls.len();
        let answer = self.ask_one(at, deadline, &request).await;
        if answer.is_err() {
            let next = (at + 1) % self.urls.len();
            // Whoever failed at the same time has moved on already.
            self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
        answer
    }

    /// Asks one member after another until one answers. For what may be asked twice.
    pub(super) async fn ask_until_answered<T, F>(
        &self,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut refused = None;
        let mut last = self.ask(DEADLINE, &request).await;
        for _ in 1..self.urls.len() {
            match last {
                Ok(answer) => return Ok(answer),
                Err(trouble) if trouble.is_for_people() => refused = Some(trouble),
                Err(_) => (),
            }
            last = self.ask(DEADLINE, &request).await;
        }
        // What people can mend says more than what another member is silent about.
        last.map_err(|trouble| refused.unwrap_or(trouble))
    }

    /// Asks all members at once and takes the first answer. For what is small and may be asked twice.
    pub(super) async fn ask_all<T, F>(
        &self,
        deadline: Duration,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let asked = (0..self.urls.len()).map(|at| self.ask_one(at, deadline, &request));
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut last = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(answer) => return Ok(answer),
                Err(trouble) => last = Some(trouble),
            }
        }
        Err(last.expect("there is at least one member, and each has answered with trouble"))
    }

    async fn ask_one<T, F>(
        &self,
        at: usize,
        deadline: Duration,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let url = &self.urls[at];
        let asked = async { request(self.client(at).await?).await };
        let answer = match tokio::time::timeout(deadline, asked).await {
            Ok(answer) => answer.map_err(|error| Trouble::new(url, &error)),
            Err(_) => Err(Trouble::Silent { url: url.clone(), after: deadline }),
        };
        if answer.is_err() {
            // The next one connects anew, and asks for a new token.
            self.lock()[at] = None;
        }
        answer
    }

    async fn client(&self, at: usize) -> Result<Client, Error> {
        if let Some(client) = self.lock()[at].clone() {
            return Ok(client);
        }
        let url = [self.urls[at].as_str()];
        let client = Client::connect(url, Some(self.options()?)).await?;
        self.lock()[at] = Some(client.clone());
        Ok(client)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
