//! How often a model is saved: as often as loses least, and at least as often as its document says.

use std::time::Duration;

use clade_core::spec::{Share, Span};

/// What the first checkpoint of a gang costs is not known before it: it is due by then.
const FIRST: Duration = Duration::from_secs(60);
/// However little a checkpoint costs: writing it takes something, too.
const LEAST: Duration = Duration::from_secs(1);
const DAY: f64 = 86_400.0;

/// The interval after which time spent on checkpoints and time lost by failures are together least, to first
/// order: √(2 · cost · mean time between failures of the gang) (Young 1974).
///
/// `failures` is the share of seats that fail in a day.
fn young(cost: Duration, failures: f64, ranks: u32) -> Duration {
    let between = DAY / (failures * f64::from(ranks));
    let seconds = (2.0 * cost.as_secs_f64() * between).sqrt();
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// The share of seats that fail in a day: as the coordinator has seen it, else as the document states it.
pub(crate) fn failures_per_day(seen: Option<Span>, stated: Share) -> f64 {
    seen.map_or(stated.0, |between| DAY / between.duration().as_secs_f64())
}

/// The interval of one gang.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    most: Duration,
    failures: f64,
    ranks: u32,
    /// For how long a checkpoint keeps the gang from training.
    cost: Option<Duration>,
}

impl Interval {
    pub(crate) const fn new(most: Duration, failures: f64, ranks: u32) -> Self {
        Self { most, failures, ranks, cost: None }
    }

    /// A checkpoint has kept the gang for so long; returns the new interval if it is another.
    pub(crate) fn measured(&mut self, cost: Duration) -> Option<Duration> {
        let before = self.get();
        // The first is slower than those that find their memory again.
        self.cost = Some(self.cost.map_or(cost, |known| (known + cost) / 2));
        Some(self.get()).filter(|now| now.abs_diff(before) > before / 4)
    }

    pub(crate) fn get(&self) -> Duration {
        let least_loss = self.cost.map_or(FIRST, |cost| young(cost, self.failures, self.ranks));
        least_loss.max(LEAST).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_interval_is_youngs_and_never_above_the_documents() {
        // As `make study` takes it for 64 ranks, at 0.27 % a day and at ten and a hundred times that.
        let found = [0.0027, 0.027, 0.27].map(|failures| young(seconds(3), failures, 64).as_secs());
        assert_eq!(found, [1_732, 547, 173]);
        let mut interval = Interval::new(seconds(600), 0.27, 64);
        assert_eq!(interval.get(), seconds(60), "nothing is known before the first");
        assert_eq!(interval.measured(seconds(3)).map(|it| it.as_secs()), Some(173));
        assert_eq!(interval.measured(seconds(3)), None);
        assert_eq!(interval.measured(seconds(400)).map(|it| it.as_secs()), Some(600));
        assert_eq!(Interval::new(seconds(30), 0.0027, 1).get(), seconds(30));
    }

    #[test]
    fn what_was_seen_to_fail_counts_and_by_hand_what_the_document_states() {
        let (stated, days) =
            (Share(0.0027), |days: u64| Some(Span::from_millis(days * 86_400_000)));
        assert_eq!(failures_per_day(None, stated), 0.0027);
        assert_eq!(failures_per_day(days(50), stated), 0.02);
        // Nobody says so; a gang that was told so would save without end, and not divide by nothing.
        let mut interval = Interval::new(seconds(600), failures_per_day(days(0), stated), 2);
        interval.measured(seconds(3));
        assert_eq!(interval.get(), LEAST);
    }

    #[test]
    fn where_nothing_fails_the_document_decides_and_nobody_saves_without_end() {
        for (failures, cost, due) in [(0.0, 3, 600), (0.0027, 0, 1), (1.0, 0, 1)] {
            let mut interval = Interval::new(seconds(600), failures, 2);
            interval.measured(seconds(cost));
            assert_eq!(interval.get(), seconds(due), "{failures} {cost}");
        }
        let mut often = Interval::new(Duration::from_millis(50), 0.0027, 2);
        often.measured(Duration::ZERO);
        assert_eq!(often.get(), Duration::from_millis(50));
    }
}
