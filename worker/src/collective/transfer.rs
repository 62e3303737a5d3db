//! Sending to the successor and receiving from the predecessor at the same time.
//!
//! Both sockets are non-blocking and waited for together, so a ring whose members all send at
//! once cannot lock up, however large the buffers. Whatever is sent at once is followed by its digest,
//! XXH3 seeded by the connection's secret and by how many came before: damage, repetition and words out of
//! turn are told from what was meant. Numbers travel in the machine's byte order, which is little-endian
//! everywhere Clade runs.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clade_model::collective::CollectiveError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use xxhash_rust::xxh3::xxh3_64_with_seed;

#[cfg(target_endian = "big")]
compile_error!("the ring exchanges numbers in little-endian order");

/// A neighbour's machine that answers nothing for so long is gone: a little later than its agent would
/// be declared lost, since a network that comes back within that time is to cost nothing. Asked on the
/// connection that is read from, which is idle then; a peer that is only late answers, so no limit is set on
/// how long it may take to read.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How often a machine that has nothing to say is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(1);
const DIGEST_BYTES: usize = 8;

/// The time that one rank of a ring has waited for others.
#[derive(Clone, Debug, Default)]
pub struct Waited(Arc<AtomicU64>);

impl Waited {
    pub(super) fn add(&self, waited: Duration) {
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The time waited since the last call.
    pub fn take(&self) -> Duration {
        Duration::from_nanos(self.0.swap(0, Ordering::Relaxed))
    }
}

/// A connection to one neighbour that has proved itself.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) rank: u32,
    pub(super) stream: TcpStream,
    /// Of the digests.
    pub(super) seed: u64,
}

/// Two neighbours: one listens to us, we listen to the other.
#[derive(Debug)]
pub(super) struct Neighbours {
    next: Link,
    prev: Link,
    pub(super) patience: Duration,
    pub(super) waited: Waited,
}

/// One of them.
#[derive(Debug)]
struct Link {
    rank: usize,
    stream: TcpStream,
    /// Of the next digest.
    seed: u64,
}

impl Link {
    fn new(Wire { rank, stream, seed }: Wire) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &seconds(ASK_EVERY))?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &seconds(ASK_EVERY))?;
        setsockopt(&stream, sockopt::TcpKeepCount, &seconds(GONE_AFTER))?;
        let rank = usize::try_from(rank).expect("a u32 fits in usize");
        Ok(Self { rank, stream, seed })
    }

    fn lost(&self, source: io::Error) -> CollectiveError {
        CollectiveError::PeerLost { peer: self.rank, source: Some(Box::new(source)) }
    }

    /// The digest that goes with the next message.
    fn digest(&mut self, message: &[u8]) -> [u8; DIGEST_BYTES] {
        let digest = xxh3_64_with_seed(message, self.seed);
        self.seed = self.seed.wrapping_add(1);
        digest.to_le_bytes()
    }
}

impl Neighbours {
    pub(super) fn new(next: Wire, prev: Wire, patience: Duration) -> io::Result<Self> {
        let waited = Waited::default();
        Ok(Self { next: Link::new(next)?, prev: Link::new(prev)?, patience, waited })
    }

    pub(super) const fn next_rank(&self) -> usize {
        self.next.rank
    }

    pub(super) const fn prev_rank(&self) -> usize {
        self.prev.rank
    }

    /// Sends all of `out` to the successor while filling `into` from the predecessor; both know how
    /// much that is.
    pub(super) fn exchange(&mut self, out: &[u8], into: &mut [u8]) -> Result<(), CollectiveError> {
        let (to_send, to_receive) = (whole(out.len()), whole(into.len()));
        let digest = if to_send > 0 { self.next.digest(out) } else { [0; DIGEST_BYTES] };
        let mut theirs = [0; DIGEST_BYTES];
        let (mut sent, mut received) = (0, 0);
        let mut moved_at = Instant::now();
        while sent < to_send || received < to_receive {
            let mut moved = 0;
            if sent < to_send {
                let (head, tail) = rest(out, &digest, sent);
                let parts = [IoSlice::new(head), IoSlice::new(tail)];
                let count = attempt(|| self.next.stream.write_vectored(&parts));
                moved += count.map_err(|source| self.next.lost(source))?;
                sent += moved;
            }
            if received < to_receive {
                let count = attempt(|| {
                    let at = received.min(into.len());
                    let head = IoSliceMut::new(&mut into[at..]);
                    let tail = IoSliceMut::new(&mut theirs[received - at..]);
                    self.prev.stream.read_vectored(&mut [head, tail])
                });
                let count = count.map_err(|source| self.prev.lost(source))?;
                moved += count;
                received += count;
            }
            if moved > 0 {
                moved_at = Instant::now();
            } else {
                self.wait(sent < to_send, received < to_receive, moved_at)?;
            }
        }
        if to_receive > 0 && self.prev.digest(into) != theirs {
            return Err(CollectiveError::Damaged { peer: self.prev.rank });
        }
        Ok(())
    }

    /// The neighbour that has hung up, if one has. What it sent before may not have been read yet.
    pub(super) fn hung_up(&self) -> Option<CollectiveError> {
        let links = [&self.prev, &self.next];
        links.into_iter().find_map(|link| {
            let hung_up = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
            let mut sockets = [PollFd::new(link.stream.as_fd(), hung_up)];
            let is_ready = poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
            is_ready.then(|| link.lost(ErrorKind::ConnectionReset.into()))
        })
    }

    fn wait(&self, to_send: bool, to_receive: bool, since: Instant) -> Result<(), CollectiveError> {
        let link = if to_receive { &self.prev } else { &self.next };
        let waited = since.elapsed();
        let Some(left) = self.patience.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Err(CollectiveError::Timeout { peer: link.rank, waited });
        };
        let mut sockets = Vec::with_capacity(2);
        if to_send {
            sockets.push(PollFd::new(self.next.stream.as_fd(), PollFlags::POLLOUT));
        }
        if to_receive {
            sockets.push(PollFd::new(self.prev.stream.as_fd(), PollFlags::POLLIN));
        }
        let begun = Instant::now();
        let polled = poll(&mut sockets, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        self.waited.add(begun.elapsed());
        match polled {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(link.lost(errno.into())),
        }
    }
}

/// Bytes of a message with its digest; an empty one is none.
const fn whole(message: usize) -> usize {
    if message == 0 { 0 } else { message + DIGEST_BYTES }
}

/// What of a message and its digest is left to send.
fn rest<'a>(message: &'a [u8], digest: &'a [u8], sent: usize) -> (&'a [u8], &'a [u8]) {
    let at = sent.min(message.len());
    (&message[at..], &digest[sent - at..])
}

/// Bytes moved: 0 if the socket is not ready; the end of a stream is an error here.
fn attempt(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    match call() {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(count),
        Err(error)
            if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::Interrupted =>
        {
            Ok(0)
        }
        Err(error) => Err(error),
    }
}
