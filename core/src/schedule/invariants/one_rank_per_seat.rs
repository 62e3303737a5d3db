//! One Rank per Seat: no two living ranks share a (worker, slot), and no rank sits at a worker
//! that is not known.
//!
//! Without it two processes would fight for one GPU's memory.

use std::collections::BTreeSet;

use super::Violation;
use crate::schedule::{Gang, State};

pub(super) fn check(after: &State, found: &mut Vec<Violation>) {
    let mut seats = BTreeSet::new();
    for run in after.runs.values() {
        for (id, work) in &run.works {
            for (rank, seat) in work.gang().into_iter().flat_map(Gang::alive) {
                if !seats.insert(seat) {
                    found.push(Violation(format!("{id} rank {rank} shares seat {seat}")));
                }
                if after.workers.get(&seat.worker).is_none_or(|it| it.slots <= seat.slot) {
                    found.push(Violation(format!("{id} rank {rank} sits at no known seat {seat}")));
                }
            }
        }
    }
}
