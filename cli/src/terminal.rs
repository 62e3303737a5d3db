//! The terminal's own habits, changed for a while and always put back.

use std::io::{self, IsTerminal as _};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

/// Standard input's terminal without some of its habits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Without {
    before: Termios,
}

impl Without {
    /// None if standard input is no terminal.
    pub(crate) fn habits(habits: LocalFlags) -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut changed = before.clone();
        changed.local_flags.remove(habits);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &changed).ok()?;
        Some(Self { before })
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}
