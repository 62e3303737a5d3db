//! Ctrl-C and its relatives, counted.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Wishes to stop: SIGINT, SIGTERM, or the terminal's end (SIGHUP).
pub(crate) struct Interrupts {
    int: Signal,
    term: Signal,
    hang_up: Signal,
}

impl Interrupts {
    /// From now on these signals no longer end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Cancel safe: none is lost.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => (),
            _ = self.term.recv() => (),
            _ = self.hang_up.recv() => (),
        }
    }
}
