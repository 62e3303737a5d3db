//! Marks as every benchmark of this project prints them, and the quantiles they are about.

use std::io::Write as _;
use std::time::Duration;

/// Prints one line of figures.
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to read it: the exit status tells as much.
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Prints a mark that wants at least so much.
pub(crate) fn mark(name: &str, value: f64, unit: &str, wanted: f64) {
    let verdict = if value >= wanted { "met" } else { "short" };
    let digits = if value >= 100.0 { 0 } else { 2 };
    say(format_args!("mark {name} {value:.digits$} {unit} want >= {wanted}: {verdict}"));
}

/// Prints a mark that wants less than so much.
pub(crate) fn mark_below(name: &str, value: f64, unit: &str, wanted: f64) {
    let verdict = if value < wanted { "met" } else { "short" };
    say(format_args!("mark {name} {value:.1} {unit} want < {wanted:.0}: {verdict}"));
}

/// Sorted durations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sorted(Vec<Duration>);

impl Sorted {
    pub(crate) fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// The value that a share of `percent` / 100 does not exceed; zero of nothing.
    pub(crate) fn at(&self, percent: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        // A share of a length is a length.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as above")]
        let at = (last as f64 * percent / 100.0).ceil() as usize;
        self.0.get(at.min(last)).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }
}

/// Milliseconds, with their fraction.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
