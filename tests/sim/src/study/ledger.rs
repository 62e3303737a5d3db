//! Where the time of a model's seats went.

use std::ops::AddAssign;

/// GPU-milliseconds by what they were spent on. All but `useful` is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Steps of the committed history.
    pub(crate) useful: u64,
    /// Steps that a failure took back.
    pub(crate) redone: u64,
    /// Standing still for a checkpoint.
    pub(crate) saving: u64,
    /// From the order to start to the first step.
    pub(crate) starting: u64,
    /// Seated without stepping: from a failure, noticed or not, to the last rank's end.
    pub(crate) dead: u64,
    /// Without seats while the store is listed, or resting.
    pub(crate) turning: u64,
    /// Without seats because there were too few that worked.
    pub(crate) short: u64,
    /// Without seats though enough that worked were free.
    pub(crate) withheld: u64,
}

impl Ledger {
    #[cfg(test)]
    /// Time of seats that were taken.
    pub(crate) const fn seated(&self) -> u64 {
        self.useful + self.redone + self.saving + self.starting + self.dead
    }

    /// All but kept steps and waiting for machines.
    pub(crate) const fn lost(&self) -> u64 {
        self.redone + self.saving + self.starting + self.dead + self.turning + self.withheld
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        let Self { useful, redone, saving, starting, dead, turning, short, withheld } = other;
        self.useful += useful;
        self.redone += redone;
        self.saving += saving;
        self.starting += starting;
        self.dead += dead;
        self.turning += turning;
        self.short += short;
        self.withheld += withheld;
    }
}
