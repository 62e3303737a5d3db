//! Seats Are Freed by Word: a rank's seat becomes free only when its agent says that it is gone, or
//! when its worker is lost (G1).
//!
//! Without it a new rank could start where the old one still holds the device's memory.

use super::{Change, alive};

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let about = change.about;
    let mut seen = Vec::new();
    for (name, id, then, now) in change.works() {
        let (before, after) = (alive(then), alive(now));
        let freed: Vec<_> = before.difference(&after).collect();
        let is_own = about.fence.as_ref().is_some_and(|it| it.run == *name && it.work == id);
        let by_word = usize::from(is_own && about.name == "rank_exited");
        let by_loss = freed.iter().filter(|seat| change.loses(&seat.worker)).count();
        if freed.len() > by_word + by_loss {
            seen.push(format!("{name}/{id}: {freed:?} freed by {}", about.name));
        }
    }
    seen
}
