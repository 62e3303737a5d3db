//! A TCP proxy that can lose what it carries, to leave requests of unknown outcome.

#![allow(dead_code, reason = "several test programs share this, and none uses all of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// What clients send is lost, and connections are cut a moment later.
    LoseRequests,
    /// What the server answers is lost, and connections are cut a moment later.
    LoseAnswers,
}

/// How long something is lost before the connection is cut: longer than etcd takes to answer.
const MOMENT: Duration = Duration::from_millis(300);

pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    lost: Arc<AtomicU64>,
    cuts: watch::Sender<u64>,
    _serving: tokio_util::task::AbortOnDropHandle<()>,
}

impl Proxy {
    /// Stands before `server`, an `http://…` URL.
    pub(crate) async fn start(server: &str) -> Self {
        let server = server.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, seen) = watch::channel(Mode::Pass);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let (cuts, _) = watch::channel(0);
        let cut = cuts.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, lost) = (server.clone(), Arc::clone(&counted));
                let (seen, cut) = (seen.clone(), cut.clone());
                connections.spawn(async move {
                    if carry(client, server, seen, lost).await == Some(Cut) {
                        cut.send_modify(|cuts| *cuts += 1);
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        let serving = tokio_util::task::AbortOnDropHandle::new(serving);
        Self { address, mode, lost, cuts, _serving: serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Sets a mode that loses something, and waits until a connection was cut.
    pub(crate) async fn cut(&self, mode: Mode) {
        let mut cuts = self.cuts.subscribe();
        cuts.mark_unchanged();
        self.set(mode);
        cuts.changed().await.unwrap();
    }

    /// Bytes lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A connection's end that the proxy made.
#[derive(PartialEq, Eq)]
struct Cut;

async fn carry(
    client: TcpStream,
    server: String,
    mode: watch::Receiver<Mode>,
    lost: Arc<AtomicU64>,
) -> Option<Cut> {
    let server = TcpStream::connect(server).await.ok()?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let copies =
        [(from_client, to_server, Mode::LoseRequests), (from_server, to_client, Mode::LoseAnswers)];
    let mut cutting = mode.clone();
    let mut running = JoinSet::new();
    for (mut from, mut to, losing) in copies {
        let (mode, lost) = (mode.clone(), Arc::clone(&lost));
        running.spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                if *mode.borrow() == losing {
                    lost.fetch_add(count as u64, Ordering::Relaxed);
                } else if to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
    tokio::select! {
        _ = running.join_next() => None,
        () = async {
            cutting.wait_for(|mode| *mode != Mode::Pass).await.ok();
            tokio::time::sleep(MOMENT).await;
        } => Some(Cut),
    }
}
