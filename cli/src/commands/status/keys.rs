//! Single key presses, without Enter and without echo, while a picture is redrawn.

use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How soon the reading thread notices that nobody listens any more.
const LOOK_UP_MS: u16 = 100;

/// Standard input as keys; restored when dropped. Ctrl-C stays a signal.
pub(super) struct Keys {
    before: Termios,
    quit: CancellationToken,
    _listening: DropGuard,
}

impl Keys {
    /// None if standard input is no terminal.
    pub(super) fn listen() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
        let quit = CancellationToken::new();
        let listening = CancellationToken::new();
        let (pressed, heard) = (quit.clone(), listening.clone());
        // It ends soon after its listener does, so the runtime need not wait for a key.
        tokio::task::spawn_blocking(move || {
            if q_is_pressed(&heard) {
                pressed.cancel();
            }
        });
        Some(Self { before, quit, _listening: listening.drop_guard() })
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

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}
