//! Sending to the successor and receiving from the predecessor at the same time.
//!
//! Both sockets are non-blocking and waited for together, so a ring whose members all send at
//! once cannot lock up, however large the buffers. Numbers travel in the machine's byte order,
//! which is little-endian everywhere Clade runs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clade_model::collective::CollectiveError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[cfg(target_endian = "big")]
compile_error!("the ring exchanges numbers in little-endian order");

/// The time that one rank of a ring has waited for others.
#[derive(Clone, Debug, Default)]
pub struct Waited(Arc<AtomicU64>);

impl Waited {
    fn add(&self, waited: Duration) {
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The time waited since the last call.
    pub fn take(&self) -> Duration {
        Duration::from_nanos(self.0.swap(0, Ordering::Relaxed))
    }
}

/// Two neighbours: one listens to us, we listen to the other.
#[derive(Debug)]
pub(super) struct Neighbours {
    pub(super) next_rank: usize,
    pub(super) prev_rank: usize,
    next: TcpStream,
    prev: TcpStream,
    patience: Duration,
    pub(super) waited: Waited,
}

impl Neighbours {
    pub(super) fn new(
        (next_rank, next): (usize, TcpStream),
        (prev_rank, prev): (usize, TcpStream),
        patience: Duration,
    ) -> io::Result<Self> {
        for stream in [&next, &prev] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
        }
        let waited = Waited::default();
        Ok(Self { next_rank, prev_rank, next, prev, patience, waited })
    }

    /// Sends all of `out` to the successor while filling `into` from the predecessor.
    pub(super) fn exchange(&mut self, out: &[u8], into: &mut [u8]) -> Result<(), CollectiveError> {
        let (mut sent, mut received) = (0, 0);
        let mut moved_at = Instant::now();
        while sent < out.len() || received < into.len() {
            let mut moved = 0;
            if sent < out.len() {
                let count = attempt(|| self.next.write(&out[sent..]));
                moved += count.map_err(|source| lost(self.next_rank, source))?;
                sent += moved;
            }
            if received < into.len() {
                let count = attempt(|| self.prev.read(&mut into[received..]));
                let count = count.map_err(|source| lost(self.prev_rank, source))?;
                moved += count;
                received += count;
            }
            if moved > 0 {
                moved_at = Instant::now();
            } else {
                self.wait(sent < out.len(), received < into.len(), moved_at)?;
            }
        }
        Ok(())
    }

    fn wait(&self, to_send: bool, to_receive: bool, since: Instant) -> Result<(), CollectiveError> {
        let peer = if to_receive { self.prev_rank } else { self.next_rank };
        let waited = since.elapsed();
        let Some(left) = self.patience.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Err(CollectiveError::Timeout { peer, waited });
        };
        let mut sockets = Vec::with_capacity(2);
        if to_send {
            sockets.push(PollFd::new(self.next.as_fd(), PollFlags::POLLOUT));
        }
        if to_receive {
            sockets.push(PollFd::new(self.prev.as_fd(), PollFlags::POLLIN));
        }
        let begun = Instant::now();
        let polled = poll(&mut sockets, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        self.waited.add(begun.elapsed());
        match polled {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(lost(peer, errno.into())),
        }
    }
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

fn lost(peer: usize, source: io::Error) -> CollectiveError {
    CollectiveError::PeerLost { peer, source: Some(Box::new(source)) }
}
