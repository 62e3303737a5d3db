//! Committed Never Goes Back: a model's newest step falls only when a newer gang recorded an older
//! one, and a done model stays done.
//!
//! Without it a crash could silently send a model back to the seed.

use super::Violation;
use crate::schedule::{Phase, State};

pub(super) fn check(before: &State, after: &State, found: &mut Vec<Violation>) {
    for (name, run) in &before.runs {
        for (id, then) in &run.works {
            let Some(now) = after.work(name, *id) else {
                found.push(Violation(format!("{name}/{id} vanished")));
                continue;
            };
            if then.phase == Phase::Done && now.phase != Phase::Done {
                found.push(Violation(format!("{name}/{id} is no longer done")));
            }
            let is_older = now.committed_step() < then.committed_step();
            let newest = now.committed.last().map(|it| it.incarnation);
            if is_older && newest <= then.committed.last().map(|it| it.incarnation) {
                found.push(Violation(format!("{name}/{id} lost committed steps")));
            }
            if !now.committed.is_sorted_by(|a, b| a.step < b.step) {
                found.push(Violation(format!("{name}/{id} has a history out of order")));
            }
        }
    }
}
