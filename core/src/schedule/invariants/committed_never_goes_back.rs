//! Committed Never Goes Back: a model's newest step falls only when a newer gang recorded an older
//! one, and a done work stays done (G4).
//!
//! Without it a crash could silently send a model back to the seed.

use super::Change;
use crate::schedule::Phase;

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    for (name, id, then, now) in change.works() {
        if then.phase == Phase::Done && now.phase != Phase::Done {
            seen.push(format!("{name}/{id} is no longer done"));
        }
        let is_older = now.committed_step() < then.committed_step();
        let newest = now.committed.last().map(|it| it.incarnation);
        if is_older && newest <= then.committed.last().map(|it| it.incarnation) {
            seen.push(format!("{name}/{id} lost committed steps"));
        }
        if !now.committed.is_sorted_by(|a, b| a.step < b.step) {
            seen.push(format!("{name}/{id} has a history out of order"));
        }
        let is_foreign = |it: &&crate::ids::CheckpointRef| Some(it.model) != id.model();
        if now.committed.iter().find(is_foreign).is_some() {
            seen.push(format!("{name}/{id} has another model's checkpoint"));
        }
    }
    seen
}
