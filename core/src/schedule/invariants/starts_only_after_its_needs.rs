//! Starts Only After Its Needs: whatever is seated has its inputs committed, and an expert or the
//! dense baseline never starts without the seed's last checkpoint (G4).
//!
//! Without it an expert could train from scratch and nobody would notice.

use super::Change;
use crate::ids::{Step, WorkId};
use crate::schedule::{RunPhase, Work};

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    for (name, id, _) in change.seated() {
        let Some(run) = change.after.runs.get(name) else { continue };
        if !change.after.missing(name, id).is_empty() {
            seen.push(format!("{name}/{id} started before its needs were met"));
        }
        if run.head.phase != RunPhase::Active {
            seen.push(format!("{name}/{id} started while its run is {:?}", run.head.phase));
        }
        for model in run.plan().reads(id) {
            let read = change.after.work(name, WorkId::Model(model));
            let step = read.map_or(Step(0), Work::committed_step);
            if step < run.due(model) {
                seen.push(format!("{name}/{id} reads {model} at step {step}"));
            }
        }
    }
    seen
}
