//! How a gang finds together: rank 0 hosts a [`Meeting`], the others [`join`] it.
//!
//! Whoever calls without the gang's fence is refused and forgotten; the meeting goes on.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::handshake::{Hello, Place, Purpose, Reply, receive_line, send_line};
use super::ring::TcpRing;

/// How long one caller may take to say who it is: a silent stranger must not hold up the gang.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How soon a waiting rank notices that it is to stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Why a gang did not find together.
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("rank {} did not come within {waited:?}", missing.first().copied().unwrap_or(0))]
    Timeout { missing: Vec<u32>, waited: Duration },
    #[error("the gang at {address} refused this rank: {why}")]
    Refused { address: String, why: String },
    #[error("the connection to rank {peer} failed while the gang was meeting: {source}")]
    Peer { peer: u32, source: io::Error },
    #[error("asked to stop while the gang was meeting")]
    Stopped,
}

/// How long a rank waits for its gang, and what makes it wait no longer.
#[derive(Clone, Debug)]
pub struct Patience {
    whole: Duration,
    until: Instant,
    stop: Arc<AtomicBool>,
}

impl Patience {
    pub fn new(whole: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { whole, until: Instant::now() + whole, stop }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn timeout(&self, missing: Vec<u32>) -> MeetError {
        if self.is_stopped() {
            MeetError::Stopped
        } else {
            MeetError::Timeout { missing, waited: self.whole }
        }
    }
}

/// Rank 0, listening for its gang.
#[derive(Debug)]
pub struct Meeting {
    listener: TcpListener,
    address: SocketAddr,
}

impl Meeting {
    /// Listens on `address`; port 0 takes a free one.
    pub fn listen(address: &str) -> Result<Self, MeetError> {
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) =
            bind().map_err(|source| MeetError::Bind { address: address.to_owned(), source })?;
        Ok(Self { listener, address })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for every other rank, tells all of them where the others are, and closes the ring.
    pub fn host(self, place: &Place, patience: &Patience) -> Result<TcpRing, MeetError> {
        let mut callers: BTreeMap<u32, (TcpStream, String)> = BTreeMap::new();
        let everyone = 1..place.ranks;
        while callers.len() < everyone.len() {
            let Some(mut stream) = accept(&self.listener, patience) else {
                let missing = everyone.filter(|rank| !callers.contains_key(rank)).collect();
                return Err(patience.timeout(missing));
            };
            let Ok(Hello { place: caller, purpose: Purpose::Meet { listen }, .. }) =
                admitted(&mut stream, place)
            else {
                continue;
            };
            // A rank that calls again lost its first connection.
            callers.insert(caller.rank, (stream, listen));
        }
        let own = self.address.to_string();
        let peers: Vec<String> = std::iter::once(own)
            .chain(callers.values().map(|(_, listen)| listen.clone()))
            .collect();
        for (&peer, (stream, _)) in &mut callers {
            send_line(stream, &Reply::Peers(peers.clone()))
                .map_err(|source| MeetError::Peer { peer, source })?;
        }
        close_ring(&self.listener, place, &peers, patience)
    }
}

/// Calls rank 0 at `address` until it answers, and takes this rank's place in the ring.
pub fn join(address: &str, place: &Place, patience: &Patience) -> Result<TcpRing, MeetError> {
    loop {
        let failed = match try_join(address, place, patience) {
            Ok(ring) => return Ok(ring),
            Err(MeetError::Peer { peer: 0, source }) => source,
            Err(error) => return Err(error),
        };
        if patience.is_stopped() {
            return Err(MeetError::Stopped);
        }
        if patience.is_over() {
            return Err(MeetError::Peer { peer: 0, source: failed });
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

fn try_join(address: &str, place: &Place, patience: &Patience) -> Result<TcpRing, MeetError> {
    let lost_host = |source| MeetError::Peer { peer: 0, source };
    let mut host = TcpStream::connect(address).map_err(lost_host)?;
    let own_address = host.local_addr().map_err(lost_host)?.ip();
    let listener = Meeting::listen(&SocketAddr::new(own_address, 0).to_string())?;
    let purpose = Purpose::Meet { listen: listener.address.to_string() };
    let reply = send_line(&mut host, &Hello::new(place, purpose))
        .and_then(|()| answer(&mut host, patience))
        .map_err(lost_host)?;
    match reply {
        Reply::Refused(why) => Err(MeetError::Refused { address: address.to_owned(), why }),
        Reply::Peers(peers) => close_ring(&listener.listener, place, &peers, patience),
    }
}

/// Connects to the successor and takes the predecessor's connection.
fn close_ring(
    listener: &TcpListener,
    place: &Place,
    peers: &[String],
    patience: &Patience,
) -> Result<TcpRing, MeetError> {
    let after = (place.rank + 1) % place.ranks;
    let before = (place.rank + place.ranks - 1) % place.ranks;
    let target = usize::try_from(after).ok().and_then(|after| peers.get(after));
    let connect = || {
        let target = target.ok_or_else(|| io::Error::other("rank 0 named too few addresses"))?;
        let mut next = TcpStream::connect(target)?;
        send_line(&mut next, &Hello::new(place, Purpose::Ring))?;
        Ok(next)
    };
    let next = connect().map_err(|source| MeetError::Peer { peer: after, source })?;
    loop {
        let Some(mut prev) = accept(listener, patience) else {
            return Err(patience.timeout(vec![before]));
        };
        match admitted(&mut prev, place) {
            Ok(Hello { place: caller, purpose: Purpose::Ring, .. }) if caller.rank == before => {
                return TcpRing::new(place, next, prev)
                    .map_err(|source| MeetError::Peer { peer: before, source });
            }
            Ok(_) | Err(_) => (),
        }
    }
}

/// Reads a caller's hello; a stranger is told why it is refused.
fn admitted(stream: &mut TcpStream, own: &Place) -> io::Result<Hello> {
    stream.set_read_timeout(Some(HELLO_PATIENCE))?;
    let hello: Hello = receive_line(stream)?;
    if let Err(why) = hello.judge(own) {
        tracing::warn!(%why, "refused a caller");
        send_line(stream, &Reply::Refused(format!("the caller {why}")))?;
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(hello)
}

/// Waits for rank 0's answer, which comes when the whole gang is there.
fn answer(host: &mut TcpStream, patience: &Patience) -> io::Result<Reply> {
    while !wait_readable(host, patience) {
        if patience.is_stopped() || patience.is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    host.set_read_timeout(Some(HELLO_PATIENCE))?;
    receive_line(host)
}

/// The next connection, as a blocking stream; none once there is no more patience.
fn accept(listener: &TcpListener, patience: &Patience) -> Option<TcpStream> {
    loop {
        if let Ok((stream, _)) = listener.accept()
            && stream.set_nonblocking(false).is_ok()
        {
            return Some(stream);
        }
        if patience.is_stopped() || patience.is_over() {
            return None;
        }
        wait_readable(listener, patience);
    }
}

/// Waits a short while; whether there is something to read.
fn wait_readable(socket: &impl AsFd, patience: &Patience) -> bool {
    let left = patience.until.saturating_duration_since(Instant::now()).min(LOOK_UP);
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    // An interrupted wait was a short one.
    poll(&mut waiting, timeout).is_ok_and(|ready| ready > 0)
}
