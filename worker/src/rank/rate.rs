//! How fast a work goes, over the last few seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);

/// Units done at recent times.
#[derive(Debug, Default)]
pub(super) struct Rate {
    seen: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Notes that `done` units are done at `now`; returns units per second.
    pub(super) fn note(&mut self, now: Instant, done: u64) -> f64 {
        self.seen.push_back((now, done));
        // The oldest kept is just outside of the window, so that slow works have a rate too.
        while self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.seen.pop_front();
        }
        let Some(&(since, before)) = self.seen.front() else { return 0.0 };
        let seconds = now.duration_since(since).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
        let units = done.saturating_sub(before) as f64;
        if seconds > 0.0 { units / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_of_the_last_unit_if_that_is_older() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
        close(rate.note(at(0), 100), 0.0);
        close(rate.note(at(10), 200), 10.0);
        close(rate.note(at(20), 220), 6.0);
        close(rate.note(at(60), 240), 0.5);
    }
}
