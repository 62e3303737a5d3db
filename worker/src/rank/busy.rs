//! How long a rank works per step, its waits for others left out: what tells a straggler from those
//! that wait for it.

use std::time::Duration;

/// The steps since the last mean was taken.
#[derive(Debug, Default)]
pub(super) struct Busy {
    sum: Duration,
    steps: u32,
}

impl Busy {
    pub(super) fn note(&mut self, worked: Duration) {
        self.sum += worked;
        self.steps += 1;
    }

    /// Mean milliseconds per step, and begins anew; none without a step.
    pub(super) fn take(&mut self) -> Option<f64> {
        let Self { sum, steps } = std::mem::take(self);
        (steps > 0).then(|| sum.as_secs_f64() * 1000.0 / f64::from(steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_the_steps_since_the_last_one() {
        let mut busy = Busy::default();
        assert_eq!(busy.take(), None);
        for millis in [10, 20] {
            busy.note(Duration::from_millis(millis));
        }
        assert_eq!(busy.take(), Some(15.0));
        busy.note(Duration::from_millis(4));
        assert_eq!((busy.take(), busy.take()), (Some(4.0), None));
    }
}
