//! How long a rank waits for its gang, and what makes it wait no longer.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How soon a waiting rank notices that it is to stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// How long a machine may take to answer a call.
const CALL_PATIENCE: Duration = Duration::from_secs(5);

/// A span of time, and a flag that ends it early.
#[derive(Clone, Debug)]
pub struct Patience {
    pub(super) whole: Duration,
    until: Instant,
    stop: Arc<AtomicBool>,
    /// What is waited for cannot come any more.
    is_vain: Arc<AtomicBool>,
}

impl Patience {
    pub fn new(whole: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { whole, until: Instant::now() + whole, stop, is_vain: Arc::default() }
    }

    /// The same, for several threads of which one may call off what the others wait for.
    pub(super) fn shared(&self) -> Self {
        Self { is_vain: Arc::default(), ..self.clone() }
    }

    /// Calls it off; whether this was the first to do so.
    pub(super) fn call_off(&self) -> bool {
        !self.is_vain.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn has_ended(&self) -> bool {
        self.is_stopped() || self.is_over() || self.is_vain.load(Ordering::Relaxed)
    }

    /// Waits a moment before another attempt; whether there is time for one.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        std::thread::sleep(pause);
        !self.has_ended()
    }

    /// Calls `address:port`.
    pub(super) fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CALL_PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Waits until `stream` has something to say.
    pub(super) fn wait_for(&self, stream: &TcpStream) -> io::Result<()> {
        while !self.wait_readable(stream) {
            if self.has_ended() {
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
            if self.has_ended() {
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
