//! One Rank per Seat: no two living ranks share a (worker, slot), and no rank is seated where no seat
//! is known.
//!
//! Without it two processes would fight for one GPU's memory.

use std::collections::BTreeMap;

use super::{Change, alive};

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    let mut seats = BTreeMap::new();
    for (name, id, then, now) in change.works() {
        let before = alive(then);
        for seat in alive(now).into_iter().filter(|seat| !before.contains(seat)) {
            if let Some(other) = seats.insert(seat, id) {
                seen.push(format!("{name}/{id} shares seat {seat} with {other}"));
            }
            let holder = change.after.holder(seat);
            if holder != Some((name, id)) {
                seen.push(format!("{name}/{id} sits at {seat}, which {holder:?} holds"));
            }
            if change.after.workers.get(&seat.worker).is_none_or(|it| it.offer.slots <= seat.slot) {
                seen.push(format!("{name}/{id} sits at no known seat {seat}"));
            }
        }
    }
    seen
}
