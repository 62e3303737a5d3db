//! Takes an event back: for the shell, which may find that its rows are too large to be saved.
//!
//! It looks at everything, since it builds the index anew. Time goes on, and what is told again by
//! itself within a second may be forgotten; all else is as it was.

use super::index::Index;
use super::progress::Seen;
use super::step::{Before, Effects};
use super::{Limits, Node, Phase, State};

/// Makes `state` what it was before the last event, which had these effects.
pub fn undo(state: &mut State, limits: &Limits, effects: Effects) {
    let Effects { before, .. } = effects;
    let Before { works, phases, ended, created, workers, absences, nodes, .. } = before;
    (state.term, state.failures) = (before.term, before.failures);
    for (key, leaving) in before.leaving {
        match leaving {
            Some(leaving) => state.leaving.insert(key, leaving),
            None => state.leaving.remove(&key),
        };
    }
    for ((run, id), work) in works {
        let key = (run.clone(), id);
        if !matches!(work.phase, Phase::Running(_)) || created.contains(&run) {
            state.seen.remove(&key);
        } else if id.model().is_some() {
            let started = || {
                let mut seen = Seen::started(state.clock, limits);
                seen.missed_its_start();
                seen
            };
            state.seen.entry(key.clone()).or_insert_with(started);
        }
        if let Some(found) = state.runs.get_mut(&run).and_then(|run| run.works.get_mut(&id)) {
            *found = work;
        }
    }
    for (run, phase) in phases {
        if let Some(found) = state.runs.get_mut(&run) {
            found.head.phase = phase;
            found.head.ended = ended.get(&run).copied().flatten();
        }
    }
    for run in created {
        state.runs.remove(&run);
    }
    for (id, worker) in workers {
        match worker {
            Some(worker) => state.workers.insert(id, worker),
            None => state.workers.remove(&id),
        };
    }
    for (id, (lost_at, said_goodbye)) in absences {
        if let Some(worker) = state.workers.get_mut(&id) {
            (worker.lost_at, worker.said_goodbye) = (lost_at, said_goodbye);
        }
    }
    for (name, node) in nodes {
        if node == Node::default() {
            state.nodes.remove(&name);
        } else {
            state.nodes.insert(name, node);
        }
    }
    state.index = Index::of(state);
    state.kept.clear();
    // Both only make the next event look again.
    (state.unsettled, state.doubts_ends) = (true, true);
}
