//! What is too dear to check after every event of a running coordinator: the whole state at once.

use std::collections::BTreeSet;

use crate::ids::Millis;
use crate::schedule::index::Index;
use crate::schedule::{Gang, Phase, RunPhase, State, why_waiting};

/// Everything wrong with a state, whatever led to it.
pub fn whole(state: &State, now: Millis) -> Vec<String> {
    let mut seen = Vec::new();
    let built = Index::of(state);
    if built != state.index {
        seen.push(format!("the index is {:#?}\nand should be {built:#?}", state.index));
    }
    let mut seats = BTreeSet::new();
    for (name, run) in &state.runs {
        for (id, work) in &run.works {
            for (_, seat) in work.gang().into_iter().flat_map(Gang::alive) {
                if !seats.insert(seat.clone()) {
                    seen.push(format!("{name}/{id} shares seat {seat}"));
                }
                if !state.workers.contains_key(&seat.worker) {
                    seen.push(format!("{name}/{id} sits at no known worker {seat}"));
                }
            }
            // G8: whatever waits says why.
            let waits = matches!(work.phase, Phase::Waiting | Phase::Backoff { .. });
            let why = why_waiting(state, name, *id, now);
            if waits && why.is_none_or(|why| why.to_string().is_empty()) {
                seen.push(format!("{name}/{id} waits for no reason"));
            }
        }
        let is_over = matches!(
            run.head.phase,
            RunPhase::Finished | RunPhase::Failed { .. } | RunPhase::Cancelled
        );
        if is_over && run.works.values().any(|work| work.is_under_way()) {
            seen.push(format!("{name} ended while something is under way"));
        }
        let is_active = run.head.phase == RunPhase::Active;
        if is_active && run.works.values().all(|work| work.phase == Phase::Done) {
            seen.push(format!("{name} is active and nothing of it can go on"));
        }
        if is_over != run.head.ended.is_some() {
            seen.push(format!("{name} is {:?} and ended at {:?}", run.head.phase, run.head.ended));
        }
    }
    seen
}
