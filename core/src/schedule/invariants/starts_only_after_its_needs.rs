//! Starts Only After Its Needs: whatever is seated has its inputs committed, and an expert or the
//! dense baseline never starts without the seed's last checkpoint.
//!
//! Without it an expert could train from scratch and nobody would notice.

use super::Violation;
use crate::schedule::State;

pub(super) fn check(before: &State, after: &State, found: &mut Vec<Violation>) {
    for (name, run) in &after.runs {
        let (plan, done) = (run.plan(), run.done_stages());
        for (&id, work) in &run.works {
            let was_seated = before.work(name, id).is_some_and(|it| it.gang().is_some());
            if work.gang().is_none() || was_seated {
                continue;
            }
            if !run.missing(id, &plan, &done).is_empty() {
                found.push(Violation(format!("{name}/{id} started before its needs were met")));
            }
            for model in plan.reads(id) {
                let step = after
                    .work(name, crate::ids::WorkId::Model(model))
                    .map_or(crate::ids::Step(0), crate::schedule::Work::committed_step);
                if step < run.due(model) {
                    found.push(Violation(format!("{name}/{id} reads {model} at step {step}")));
                }
            }
        }
    }
}
