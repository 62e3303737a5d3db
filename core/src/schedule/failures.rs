//! How often seats fail, as this leader has seen it: gangs are told when they start, and save as often as
//! that makes best.
//!
//! A gang that ends by a failure of a machine, a device, a process or a link counts as one failed seat,
//! whoever of its ranks it was and however many: all begin again. Whoever was asked to leave does not count,
//! and its seats' time has ended by then. Nor does a model that fails again without having saved in between:
//! that is rather its own doing, and a checkpoint would have kept nothing. A machine that is lost counts always.
//!
//! Never stored, as what was seen of paces is not: a new leader begins with what documents say.

use std::time::Duration;

use super::{Phase, State, Stop, Verdict, Work};
use crate::ids::{Millis, WorkId};
use crate::spec::default_failures_per_day;

const DAY: f64 = 86_400.0;

/// What this leader has seen of models' gangs that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    /// Seats taken.
    seats: u64,
    /// Up to when their time is counted.
    since: Millis,
    seat_time: Millis,
    seen: u64,
}

impl Failures {
    /// Gangs have taken so many seats, and left so many.
    pub(super) fn seated(&mut self, now: Millis, left: u64, taken: u64) {
        self.seat_time = self.seat_time(now);
        self.since = now;
        self.seats = self.seats.saturating_sub(left).saturating_add(taken);
    }

    /// Gangs are found on so many seats: how long they have been there, nobody saw.
    pub(super) const fn found(&mut self, now: Millis, seats: u64) {
        (self.seats, self.since) = (seats, now);
    }

    /// The leader stood still, or its clock leapt: what it did not see counts for nothing.
    pub(super) const fn slept(&mut self, passed: u64) {
        self.since = Millis(self.since.0.saturating_add(passed));
    }

    /// Seats that are taken, and failures seen.
    #[cfg(test)]
    pub(super) const fn counts(&self) -> (u64, u64) {
        (self.seats, self.seen)
    }

    pub(super) const fn failed(&mut self) {
        self.seen += 1;
    }

    /// Time of all seats together.
    const fn seat_time(&self, now: Millis) -> Millis {
        let passed = now.0.saturating_sub(self.since.0);
        Millis(self.seat_time.0.saturating_add(passed.saturating_mul(self.seats)))
    }

    /// Mean time between two failures of a seat, for a run whose document states the share of seats that fail in
    /// a day; none if nothing is to be expected.
    ///
    /// What is stated counts as one failure seen in the seat-days that it promises for one: a few failures change
    /// it, a quiet hour does not. Who states less than is published for large fleets, or nothing at all, is
    /// believed for no longer than that would be: seats that fail correct them, too.
    pub(super) fn between(&self, now: Millis, stated: f64) -> Option<Millis> {
        let seconds = Duration::from_millis(self.seat_time(now).0).as_secs_f64();
        let believed = 1.0 / stated.max(default_failures_per_day().0);
        #[expect(clippy::cast_precision_loss, reason = "nobody sees so many failures")]
        let failures = self.seen as f64 + stated * believed;
        let between = Duration::try_from_secs_f64((seconds + believed * DAY) / failures).ok()?;
        u64::try_from(between.as_millis()).ok().map(Millis)
    }
}

impl State {
    /// Failures of seats that this leader has seen.
    pub const fn seat_failures(&self) -> u64 {
        self.failures.seen
    }

    /// How long it has seen gangs train, summed over their seats.
    pub const fn seat_time(&self) -> Millis {
        self.failures.seat_time(self.clock)
    }
}

/// Whether the end of a model's gang tells that a seat has failed.
pub(super) fn is_a_seats(id: WorkId, work: &Work, verdict: &Verdict) -> bool {
    let Verdict::Failed { failure } = verdict else { return false };
    let was_left_alone = matches!(
        work.phase,
        Phase::Stopping { cause: Stop::RankGone | Stop::Hung { .. }, gang: _ }
    );
    let is_again = failure.burns_budget() && work.strikes > 0;
    id.model().is_some() && was_left_alone && failure.is_a_seats() && !is_again
}

/// Seats whose time counts: of a model's gang that runs.
pub(super) fn seats(id: WorkId, work: &Work) -> u64 {
    match &work.phase {
        Phase::Running(gang) if id.model().is_some() => gang.seats.len() as u64,
        Phase::Running(_)
        | Phase::Waiting
        | Phase::Backoff { .. }
        | Phase::Stopping { .. }
        | Phase::Inspecting { .. }
        | Phase::Done
        | Phase::Failed { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR;

    /// Failures of a seat in a day, in thousandths.
    fn rate(failures: &Failures, now: u64, stated: f64) -> Option<f64> {
        let between = failures.between(Millis(now), stated)?.0;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let rate = DAY_MS as f64 / between as f64;
        Some((rate * 1e4).round() / 10.0)
    }

    #[test]
    fn what_is_stated_counts_as_one_failure_seen_in_its_time() {
        let mut failures = Failures::default();
        for stated in [0.0027, 0.05, 1.0] {
            assert_eq!(rate(&failures, 7, stated), Some(stated * 1e3));
        }
        // 64 seats train for ten days.
        failures.seated(Millis(0), 0, 64);
        assert_eq!(rate(&failures, HOUR, 0.05), Some(44.1));
        assert_eq!(rate(&failures, 10 * DAY_MS, 0.05), Some(1.5));
        for _ in 0..31 {
            failures.failed();
        }
        assert_eq!(rate(&failures, 10 * DAY_MS, 0.05), Some(48.5));
    }

    #[test]
    fn who_expects_next_to_nothing_is_corrected_by_what_fails_and_by_nothing_else() {
        let mut failures = Failures::default();
        failures.seated(Millis(0), 0, 2);
        assert_eq!(failures.between(Millis(DAY_MS), 0.0), None);
        assert_eq!(rate(&failures, DAY_MS, 1e-5), Some(0.0));
        failures.failed();
        for stated in [0.0, 1e-5] {
            // One in 2 seat-days, and the 370 in which the published rate expects it.
            assert_eq!(rate(&failures, DAY_MS, stated), Some(2.7), "{stated}");
        }
    }

    #[test]
    fn the_time_of_seats_counts_while_they_are_taken_and_somebody_looks() {
        let mut failures = Failures::default();
        failures.seated(Millis(1_000), 0, 4);
        failures.seated(Millis(3_000), 4, 1);
        assert_eq!(failures.seat_time(Millis(4_000)), Millis(9_000));
        failures.slept(500);
        assert_eq!(failures.seat_time(Millis(4_000)), Millis(8_500));
        failures.seated(Millis(4_000), 1, 0);
        assert_eq!(failures.seat_time(Millis(9_000)), Millis(8_500));
        failures.found(Millis(9_000), 3);
        assert_eq!(failures.seat_time(Millis(10_000)), Millis(11_500));
    }
}
