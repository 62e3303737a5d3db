//! One global batch and the ranks' shares of it.

use std::ops::Range;

use super::Draw;
use crate::ids::Step;

/// All slots of one step, whichever ranks take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalBatch {
    slots: Vec<Slot>,
}

/// One pair's place in a global batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub draw: Draw,
    /// Whether the loss sees the pair; a masked one keeps its slot, so no other pair moves.
    pub valid: bool,
}

impl GlobalBatch {
    pub(super) fn new(draws: Vec<Draw>) -> Self {
        let slots = draws.into_iter().map(|draw| Slot { draw, valid: true }).collect();
        Self { slots }
    }

    /// Masks the slots whose pair cannot be used, and leaves every slot where it is.
    #[must_use]
    pub fn with_masks(mut self, masked: impl Fn(&Draw) -> bool) -> Self {
        for slot in &mut self.slots {
            slot.valid &= !masked(&slot.draw);
        }
        self
    }

    /// Every slot, in the order of the stream; none if the model has no pairs of its own.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots of rank `rank` of `ranks`, as [`share`] deals them; `rank` is below `ranks`.
    pub fn share(&self, rank: u32, ranks: u32) -> &[Slot] {
        let size = u32::try_from(self.slots.len()).expect("a batch's size is a u32");
        let Range { start, end } = share(size, rank, ranks);
        &self.slots[start as usize..end as usize]
    }
}

/// Pairs consumed before `step` (the first step is 0) with `batch` pairs per step.
pub const fn cursor(step: Step, batch: u32) -> u64 {
    step.0 * batch as u64
}

/// The positions within a global batch that rank `rank` of `ranks` takes.
///
/// The batch is K micro-batches; each rank takes K / ranks neighbouring ones, so every rank has
/// the same number of pairs and the ranks' batches laid end to end are the global batch.
pub const fn share(batch: u32, rank: u32, ranks: u32) -> Range<u32> {
    let own = batch / ranks;
    rank * own..(rank + 1) * own
}
