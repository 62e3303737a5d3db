//! New Gang, New Fence: seats never change hands under the same incarnation, and an incarnation is
//! over before the next begins (G2).
//!
//! Without it a stopped gang could still commit, and two histories of one model would interleave.

use super::Change;

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    for (name, id, then, now) in change.works() {
        if now.incarnation < then.incarnation {
            seen.push(format!("{name}/{id} went back to incarnation {}", now.incarnation));
        }
        if let (Some(was), Some(is)) = (then.gang(), now.gang()) {
            let is_same = was.seats == is.seats;
            if now.incarnation == then.incarnation && !is_same {
                seen.push(format!("{name}/{id} reuses incarnation {}", now.incarnation));
            }
            if now.incarnation != then.incarnation && was.exited.len() + 1 < was.seats.len() {
                seen.push(format!("{name}/{id} began anew while {} ranks lived", was.seats.len()));
            }
        }
    }
    seen
}
