//! One model over all its gangs: how far it is, and what its seats' time went for.

use clade_core::ids::{Incarnation, Seat};

use super::ledger::Ledger;
use super::setup::{RunPlan, SEED_STEPS};

/// What a model's seats are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Ready, and without seats.
    Waiting,
    Starting,
    Stepping,
    Saving,
    /// The last checkpoint is on its way.
    Finishing,
    /// Saving because it was asked to leave.
    Leaving,
    /// Seats are held and nothing moves.
    Dead,
    /// All ranks are gone, and the core has not concluded yet.
    Turning,
    Done,
}

/// One model.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    /// The most its gangs may have.
    pub(crate) ranks: u32,
    /// What its gang has, or the last one had.
    pub(crate) width: u32,
    /// Of a gang with all its ranks.
    step_ms: u64,
    /// Where it was when the study began.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests check the useful steps by it"))]
    pub(crate) first: u64,
    /// Where it ends.
    pub(crate) due: u64,
    pub(crate) doing: Doing,
    /// Counts changes of `doing`: what was planned in a former turn does not happen.
    pub(crate) turn: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) seats: Vec<Seat>,
    /// The newest committed step.
    pub(crate) kept: u64,
    /// Saved on leaving, for the core to find.
    pub(crate) candidate: Option<u64>,
    pub(crate) saved_at: u64,
    /// While it waits: whether fewer seats than it needs are free and work.
    pub(crate) is_short: bool,
    pub(crate) ended: Option<u64>,
    pub(crate) ledger: Ledger,
    /// Stepping from `step` since `from`.
    step: u64,
    from: u64,
    /// Seat-milliseconds of steps that are not committed.
    pending: u64,
    spent_to: u64,
}

impl Track {
    pub(crate) fn new(plan: &RunPlan, steps: u64, begun: u64) -> Self {
        let first = SEED_STEPS + begun;
        Self {
            ranks: plan.ranks,
            width: plan.ranks,
            step_ms: plan.step_ms,
            first,
            due: SEED_STEPS + steps,
            doing: Doing::Waiting,
            turn: 0,
            incarnation: Incarnation(0),
            seats: Vec::new(),
            kept: first,
            candidate: None,
            saved_at: 0,
            is_short: false,
            ended: None,
            ledger: Ledger::default(),
            step: first,
            from: 0,
            pending: 0,
            spent_to: 0,
        }
    }

    #[cfg(test)]
    /// Seat-milliseconds that its steps take at best.
    pub(crate) fn ideal(&self) -> u64 {
        (self.due - self.first) * self.step_ms * u64::from(self.ranks)
    }

    /// Milliseconds that a step of its gang takes: widths are powers of two, so that it comes out even.
    pub(crate) fn pace(&self) -> u64 {
        self.step_ms * u64::from(self.ranks) / u64::from(self.width)
    }

    /// Whether a gang is there that a failure would stop.
    pub(crate) const fn is_live(&self) -> bool {
        match self.doing {
            Doing::Starting
            | Doing::Stepping
            | Doing::Saving
            | Doing::Finishing
            | Doing::Leaving => true,
            Doing::Waiting | Doing::Dead | Doing::Turning | Doing::Done => false,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        u32::try_from(self.seats.len()).is_ok_and(|seats| seats == self.width)
    }

    /// Enters in the ledger what passed since it last was.
    pub(crate) fn spend(&mut self, now: u64) {
        let passed = now - self.spent_to;
        let waits = passed * u64::from(self.ranks);
        let seats = passed * u64::from(self.width);
        self.spent_to = now;
        let ledger = &mut self.ledger;
        match self.doing {
            Doing::Waiting if self.is_short => ledger.short += waits,
            Doing::Waiting => ledger.withheld += waits,
            Doing::Starting => ledger.starting += seats,
            Doing::Stepping => self.pending += seats,
            Doing::Saving | Doing::Finishing | Doing::Leaving => ledger.saving += seats,
            Doing::Dead => ledger.dead += seats,
            Doing::Turning => ledger.turning += seats,
            Doing::Done => (),
        }
    }

    pub(crate) fn turn_to(&mut self, now: u64, doing: Doing) {
        self.spend(now);
        self.step = self.reached(now);
        (self.doing, self.from) = (doing, now);
        self.turn += 1;
    }

    /// Steps whole by now.
    pub(crate) fn reached(&self, now: u64) -> u64 {
        if self.doing == Doing::Stepping {
            (self.step + (now - self.from) / self.pace()).min(self.due)
        } else {
            self.step
        }
    }

    /// The first end of a step at or after `at`.
    pub(crate) fn boundary(&self, at: u64) -> u64 {
        self.from + at.saturating_sub(self.from).div_ceil(self.pace()) * self.pace()
    }

    /// When its last step ends if nothing comes between.
    pub(crate) fn finish(&self) -> u64 {
        self.from + (self.due - self.step) * self.pace()
    }

    /// A new gang goes on from `step`.
    pub(crate) fn resume(&mut self, now: u64, incarnation: Incarnation, width: u32, step: u64) {
        assert_eq!(step, self.kept, "a gang does not go on from the newest committed step");
        self.turn_to(now, Doing::Starting);
        self.width = width;
        (self.incarnation, self.step, self.candidate) = (incarnation, step, None);
        self.seats.clear();
    }

    /// `step` is committed.
    pub(crate) fn keep(&mut self, now: u64, step: u64) {
        self.spend(now);
        let kept = (step - self.kept) * self.step_ms * u64::from(self.ranks);
        self.pending -= kept;
        self.ledger.useful += kept;
        self.kept = step;
    }

    /// What is not committed will be done again.
    pub(crate) fn lose(&mut self, now: u64) {
        self.spend(now);
        self.ledger.redone += std::mem::take(&mut self.pending);
    }
}
