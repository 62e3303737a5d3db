//! How long a rank waits for its gang, and what makes it wait no longer.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How soon a waiting rank notices that it is to stop.
pub(super) const LOOK_UP: Duration = Duration::from_millis(100);

/// A span of time, and a flag that ends it early.
#[derive(Clone, Debug)]
pub struct Patience {
    pub(super) whole: Duration,
    until: Instant,
    stop: Arc<AtomicBool>,
}

impl Patience {
    pub fn new(whole: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { whole, until: Instant::now() + whole, stop }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Waits until `stream` has something to say.
    pub(super) fn wait_for(&self, stream: &TcpStream) -> io::Result<()> {
        while !self.wait_readable(stream) {
            if self.is_stopped() || self.is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// The next connection, as a blocking stream; none once there is no more patience.
    pub(super) fn accept(&self, listener: &TcpListener) -> Option<TcpStream> {
        loop {
            if let Ok((stream, _)) = listener.accept()
                && stream.set_nonblocking(false).is_ok()
            {
                return Some(stream);
            }
            if self.is_stopped() || self.is_over() {
                return None;
            }
            self.wait_readable(listener);
        }
    }

    /// Waits a short while; whether there is something to read.
    fn wait_readable(&self, socket: &impl AsFd) -> bool {
        let left = self.until.saturating_duration_since(Instant::now()).min(LOOK_UP);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait was a short one.
        poll(&mut waiting, timeout).is_ok_and(|ready| ready > 0)
    }
}
