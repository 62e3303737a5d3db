//! How much one caller may say: a bucket that fills at a steady rate.

use std::time::Instant;

/// Counts what is taken against what has come in since.
pub(crate) struct Allowance {
    per_second: f64,
    at_most: f64,
    left: f64,
    counted: Instant,
}

impl Allowance {
    /// Full at first.
    pub(crate) fn new(per_second: u32, at_most: u32) -> Self {
        let at_most = f64::from(at_most);
        Self { per_second: f64::from(per_second), at_most, left: at_most, counted: Instant::now() }
    }

    /// Takes one, if there is one left now.
    pub(crate) fn take(&mut self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.counted).as_secs_f64();
        self.left = (self.left + since * self.per_second).min(self.at_most);
        self.counted = now;
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether `rate` a second for `seconds` goes through.
    fn bears(rate: u32, seconds: u32) -> bool {
        let mut allowance = Allowance::new(200, 1000);
        let start = allowance.counted;
        (0..rate * seconds)
            .all(|nth| allowance.take_at(start + Duration::from_secs(1) * nth / rate))
    }

    #[test]
    fn a_steady_rate_passes_for_ever_and_a_higher_one_for_some_seconds() {
        assert!(bears(200, 600));
        assert!(bears(300, 9));
        assert!(!bears(300, 11));
        assert!(!bears(100_000, 1));
    }
}
