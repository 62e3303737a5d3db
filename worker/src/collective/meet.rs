//! How a gang finds together: rank 0 hosts a [`Meeting`], the others [`join`] it.
//!
//! Whoever calls without the gang's fence and secret is refused and forgotten; the meeting goes on.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::handshake::{
    Caller, Peers, Place, Purpose, Unproved, admit, introduce, receive_line, send_line,
};
use super::patience::Patience;
use super::ring::TcpRing;
use super::secret::Secret;
use super::transfer::Wire;

const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a gang did not find together.
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("rank {} did not come within {waited:?}", missing.first().copied().unwrap_or(0))]
    Timeout { missing: Vec<u32>, waited: Duration },
    #[error("the gang at {address} refused this rank: {why}")]
    Refused { address: String, why: String },
    #[error("who listens at {address} does not know the secret of this gang")]
    Impostor { address: String },
    #[error("the connection to rank {peer} failed while the gang was meeting: {source}")]
    Peer { peer: u32, source: io::Error },
    #[error("asked to stop while the gang was meeting")]
    Stopped,
}

impl MeetError {
    fn timeout(missing: Vec<u32>, patience: &Patience) -> Self {
        if patience.is_stopped() {
            Self::Stopped
        } else {
            Self::Timeout { missing, waited: patience.whole }
        }
    }

    fn unproved(peer: u32, address: &str, error: Unproved) -> Self {
        let address = address.to_owned();
        match error {
            Unproved::Lost(source) => Self::Peer { peer, source },
            Unproved::Refused(why) => Self::Refused { address, why },
            Unproved::Impostor => Self::Impostor { address },
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
    pub fn host(
        self,
        place: &Place,
        secret: &Secret,
        patience: &Patience,
    ) -> Result<TcpRing, MeetError> {
        let mut callers: BTreeMap<u32, (TcpStream, String)> = BTreeMap::new();
        let everyone = 1..place.ranks;
        while callers.len() < everyone.len() {
            let Some(stream) = patience.accept(&self.listener) else {
                let missing = everyone.filter(|rank| !callers.contains_key(rank)).collect();
                return Err(MeetError::timeout(missing, patience));
            };
            let Some((stream, caller)) = admitted(stream, place, secret) else { continue };
            let Purpose::Meet { listen } = caller.purpose else { continue };
            // A rank that calls again lost its first connection.
            callers.insert(caller.place.rank, (stream, listen));
        }
        let own = self.address.to_string();
        let peers: Vec<String> = std::iter::once(own)
            .chain(callers.values().map(|(_, listen)| listen.clone()))
            .collect();
        for (&peer, (stream, _)) in &mut callers {
            send_line(stream, &Peers(peers.clone()))
                .map_err(|source| MeetError::Peer { peer, source })?;
        }
        close_ring(&self.listener, place, secret, &peers, patience)
    }
}

/// Calls rank 0 at `address` until it answers, and takes this rank's place in the ring.
pub fn join(
    address: &str,
    place: &Place,
    secret: &Secret,
    patience: &Patience,
) -> Result<TcpRing, MeetError> {
    loop {
        match call(address, place, secret, patience) {
            Ok((own, peers)) => {
                return close_ring(&own.listener, place, secret, &peers, patience);
            }
            Err(lost @ MeetError::Peer { .. }) => {
                if !patience.pause(RETRY_PAUSE) {
                    return Err(if patience.is_stopped() { MeetError::Stopped } else { lost });
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says to rank 0 where this rank listens, and hears where all do.
fn call(
    address: &str,
    place: &Place,
    secret: &Secret,
    patience: &Patience,
) -> Result<(Meeting, Vec<String>), MeetError> {
    let lost_host = |source| MeetError::Peer { peer: 0, source };
    let mut host = patience.connect(address).map_err(lost_host)?;
    let own_address = host.local_addr().map_err(lost_host)?.ip();
    let own = Meeting::listen(&SocketAddr::new(own_address, 0).to_string())?;
    let purpose = Purpose::Meet { listen: own.address.to_string() };
    introduce(&mut host, place, purpose, secret, patience)
        .map_err(|error| MeetError::unproved(0, address, error))?;
    // It comes when the whole gang is there.
    patience.wait_for(&host).map_err(lost_host)?;
    let Peers(peers) = receive_line(&mut host).map_err(lost_host)?;
    Ok((own, peers))
}

/// Connects to the successor and takes the predecessor's connection, both at once: each rank is proved by
/// the one after it, and none could begin if all proved themselves first.
fn close_ring(
    listener: &TcpListener,
    place: &Place,
    secret: &Secret,
    peers: &[String],
    patience: &Patience,
) -> Result<TcpRing, MeetError> {
    let patience = &patience.shared();
    let after = (place.rank + 1) % place.ranks;
    let before = (place.rank + place.ranks - 1) % place.ranks;
    let target = usize::try_from(after).ok().and_then(|after| peers.get(after));
    let lost = |source| MeetError::Peer { peer: after, source };
    let target = target.ok_or_else(|| lost(io::Error::other("rank 0 named too few addresses")))?;
    let connect = || loop {
        // Nobody listens there any more: the peer is gone, and so is the gang.
        let mut stream = patience.connect(target).map_err(lost)?;
        match introduce(&mut stream, place, Purpose::Ring, secret, patience) {
            Ok(seed) => return Ok(Wire { rank: after, stream, seed }),
            // It was too slow, or this rank was: once more.
            Err(Unproved::Lost(_)) if patience.pause(RETRY_PAUSE) => (),
            Err(error) => return Err(MeetError::unproved(after, target, error)),
        }
    };
    let accept = || loop {
        let Some(stream) = patience.accept(listener) else {
            return Err(MeetError::timeout(vec![before], patience));
        };
        match admitted(stream, place, secret) {
            Some((stream, Caller { place: caller, purpose: Purpose::Ring, seed }))
                if caller.rank == before =>
            {
                return Ok(Wire { rank: before, stream, seed });
            }
            Some(_) | None => (),
        }
    };
    // The first failure is the reason; the other half is not waited for then.
    let first = Mutex::new(None);
    let kept = |made: Result<Wire, MeetError>| {
        made.map_err(|error| {
            if patience.call_off() {
                *first.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        })
        .ok()
    };
    let (next, prev) = thread::scope(|scope| {
        let connecting = scope.spawn(|| kept(connect()));
        let prev = kept(accept());
        (connecting.join().expect("connecting does not panic"), prev)
    });
    if let (Some(next), Some(prev)) = (next, prev) {
        return TcpRing::new(place, next, prev)
            .map_err(|source| MeetError::Peer { peer: before, source });
    }
    if patience.is_stopped() {
        return Err(MeetError::Stopped);
    }
    let first = first.into_inner().unwrap_or_else(PoisonError::into_inner);
    Err(first.unwrap_or_else(|| MeetError::timeout(vec![before], patience)))
}

/// A caller that has proved to belong to this gang.
fn admitted(mut stream: TcpStream, own: &Place, secret: &Secret) -> Option<(TcpStream, Caller)> {
    match admit(&mut stream, own, secret) {
        Ok(caller) => Some((stream, caller)),
        Err(Unproved::Lost(error)) => {
            tracing::debug!(%error, "a caller went before it had said who it is");
            None
        }
        Err(why @ (Unproved::Refused(_) | Unproved::Impostor)) => {
            tracing::warn!(%why, from = ?stream.peer_addr().ok(), "refused a caller");
            None
        }
    }
}
