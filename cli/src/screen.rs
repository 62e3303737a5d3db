//! The terminal, shared by whoever has something to say while bars are drawn on it.
//!
//! Without a terminal nothing here ever writes a control code.

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressDrawTarget};

use crate::output;

/// A cheap handle on standard error.
#[derive(Clone, Debug)]
pub(crate) struct Screen {
    has_bars: bool,
    /// The bars being drawn right now.
    bars: Arc<Mutex<Option<MultiProgress>>>,
}

impl Screen {
    /// Bars on a terminal, plain lines elsewhere or on demand.
    pub(crate) fn new(plain: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let has_bars = !plain && !dumb && io::stderr().is_terminal();
        Self { has_bars, bars: Arc::default() }
    }

    pub(crate) const fn has_bars(&self) -> bool {
        self.has_bars
    }

    /// Writes one line, above the bars if there are any.
    pub(crate) fn say(&self, line: &str) {
        match &*self.lock() {
            Some(bars) => bars.suspend(|| output::note(line)),
            None => output::note(line),
        }
    }

    /// Begins to draw bars; lines said from now on stand above them.
    pub(crate) fn start_bars(&self) -> MultiProgress {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        *self.lock() = Some(bars.clone());
        bars
    }

    /// Leaves the bars where they are; lines said from now on stand below them.
    pub(crate) fn end_bars(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<MultiProgress>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
