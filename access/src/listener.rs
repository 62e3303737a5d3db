//! Takes connections, plain or over TLS, and says of each who is at its other end.
//!
//! In place of tonic's own listener: that one ends the server at the first accept that fails for
//! want of file descriptors, has no limit on handshakes under way, and cannot take renewed certificates.

mod connection;
mod tls;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_stream::Stream;

pub use connection::{Connection, Peer};
pub use tls::{TlsError, TlsFiles};

/// A client that does not shake hands in this time is no client.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long a refused client may take to read why.
const LINGER: Duration = Duration::from_secs(1);
const HANDSHAKES_AT_A_TIME: usize = 512;
/// Connections taken that the server has not begun to serve.
const WAITING: usize = 64;
/// After an accept that failed: most often the process has too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A stream of connections for `serve_with_incoming`. Dropping it stops the listening.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<Connection>,
    _accepting: JoinSet<()>,
}

/// Counts handshakes that failed.
#[derive(Clone, Debug, Default)]
pub struct FailedHandshakes(Arc<AtomicU64>);

impl FailedHandshakes {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Incoming {
    /// Listens, over TLS if its configuration is given. Needs a runtime.
    pub fn new(
        listener: TcpListener,
        tls: Option<watch::Receiver<Arc<ServerConfig>>>,
        failed: FailedHandshakes,
    ) -> Self {
        let (sender, ready) = mpsc::channel(WAITING);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, tls, sender, failed));
        Self { ready, _accepting: accepting }
    }
}

impl Stream for Incoming {
    type Item = std::io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    sender: mpsc::Sender<Connection>,
    failed: FailedHandshakes,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_AT_A_TIME));
    let mut handshakes = JoinSet::new();
    while !sender.is_closed() {
        while handshakes.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection; tries again");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let config = tls.as_ref().map(|tls| Arc::clone(&tls.borrow()));
        let (sender, failed) = (sender.clone(), failed.clone());
        handshakes.spawn(async move {
            let _permit = permit;
            match shake_hands(socket, config).await {
                // Nobody serves any more if it cannot be sent.
                Ok(connection) => drop(sender.send(connection).await),
                Err(why) => {
                    failed.0.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(why, "a handshake failed");
                }
            }
        });
    }
}

async fn shake_hands(
    socket: TcpStream,
    config: Option<Arc<ServerConfig>>,
) -> Result<Connection, String> {
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(config) = config else { return Ok(Connection::plain(socket)) };
    let peer = socket.peer_addr();
    let shaken = TlsAcceptor::from(config).accept(socket).into_fallible();
    match tokio::time::timeout(HANDSHAKE_LIMIT, shaken).await {
        Ok(Ok(stream)) => Ok(Connection::tls(stream)),
        Ok(Err((error, socket))) => {
            linger(socket).await;
            Err(format!("{peer:?}: {error}"))
        }
        Err(_) => Err(format!("{peer:?}: not done in {HANDSHAKE_LIMIT:?}")),
    }
}

/// Reads what a refused client still sends: to close before would take back the alert that tells it why.
async fn linger(mut socket: TcpStream) {
    let drain = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut socket.take(64 * 1024), &mut tokio::io::sink()).await
    };
    // Whether it listens is its own affair.
    let _ = tokio::time::timeout(LINGER, drain).await;
}
