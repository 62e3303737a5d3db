//! Single key presses, without Enter and without echo, while a picture is redrawn.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::LocalFlags;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::terminal::Without;

/// How soon the reading thread notices that nobody listens any more.
const LOOK_UP_MS: u16 = 100;

/// Standard input as keys; restored when dropped. Ctrl-C stays a signal.
pub(super) struct Keys {
    _quiet: Without,
    quit: CancellationToken,
    _listening: DropGuard,
}

impl Keys {
    /// None if standard input is no terminal.
    pub(super) fn listen() -> Option<Self> {
        let quiet = Without::habits(LocalFlags::ICANON | LocalFlags::ECHO)?;
        let quit = CancellationToken::new();
        let listening = CancellationToken::new();
        let (pressed, heard) = (quit.clone(), listening.clone());
        // It ends soon after its listener does, so the runtime need not wait for a key.
        tokio::task::spawn_blocking(move || {
            if q_is_pressed(&heard) {
                pressed.cancel();
            }
        });
        Some(Self { _quiet: quiet, quit, _listening: listening.drop_guard() })
    }

    /// Waits for a `q`. Never returns once standard input has ended.
    pub(super) async fn quit(&self) {
        self.quit.cancelled().await;
    }
}

fn q_is_pressed(listening: &CancellationToken) -> bool {
    let mut stdin = io::stdin().lock();
    while !listening.is_cancelled() {
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(LOOK_UP_MS)) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => (),
            Err(_) => return false,
        }
        let mut bytes = [0; 16];
        match stdin.read(&mut bytes) {
            Ok(0) | Err(_) => return false,
            Ok(count) if bytes[..count].iter().any(|key| b"qQ\x04".contains(key)) => return true,
            Ok(_) => (),
        }
    }
    false
}
