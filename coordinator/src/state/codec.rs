//! What rows mean: the scheduler's state as keys and bytes, and back.
//!
//! `run/<run>`, `work/<run>/<work>` and `worker/<worker>`, JSON each. The only place outside the
//! engine that knows the scheduler's types.

use std::collections::{BTreeMap, BTreeSet};

use clade_core::ids::{ParseIdError, RunName, Term, WorkId, WorkerId};
use clade_core::schedule::{Object, Run, RunHead, State, Work, Worker};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{LeadError, Rows, Write};

/// The writes that bring the rows of `changed` objects up to `state`.
pub(crate) fn encode(state: &State, changed: &BTreeSet<Object>) -> Vec<Write> {
    changed.iter().map(|object| encode_one(state, object)).collect()
}

fn encode_one(state: &State, object: &Object) -> Write {
    match object {
        Object::Run(name) => {
            write(format!("run/{name}"), state.runs.get(name).map(|run| &run.head))
        }
        Object::Work(name, work) => write(format!("work/{name}/{work}"), state.work(name, *work)),
        Object::Worker(id) => write(format!("worker/{id}"), state.workers.get(id)),
    }
}

fn write<T: Serialize>(key: String, value: Option<&T>) -> Write {
    match value {
        Some(value) => {
            let value = serde_json::to_vec(value)
                .expect("the scheduler's types hold only text, numbers and lists of them");
            Write::Put { key, value }
        }
        None => Write::Delete { key },
    }
}

/// The state that `rows` stand for.
pub(crate) fn decode(rows: &Rows, term: Term) -> Result<State, LeadError> {
    let mut state = State { term, ..State::default() };
    let mut works: BTreeMap<RunName, BTreeMap<WorkId, Work>> = BTreeMap::new();
    for (key, value) in rows {
        let parts: Vec<&str> = key.splitn(3, '/').collect();
        match parts[..] {
            ["run", _] => {
                let head: RunHead = json(key, value)?;
                let name = head.spec.name().clone();
                state.runs.insert(name, Run { head, works: BTreeMap::new() });
            }
            ["work", run, work] => {
                let (run, work) = (id(key, run)?, id(key, work)?);
                works.entry(run).or_default().insert(work, json(key, value)?);
            }
            ["worker", worker] => {
                let worker_id = WorkerId(worker.to_owned());
                state.workers.insert(worker_id, json::<Worker>(key, value)?);
            }
            _ => {
                let reason = "no such kind of object".to_owned();
                return Err(LeadError::Garbled { key: key.clone(), reason });
            }
        }
    }
    // Works of a run that is not there: its last row was never written.
    for (name, works) in works {
        if let Some(run) = state.runs.get_mut(&name) {
            run.works = works;
        }
    }
    Ok(state)
}

fn json<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, LeadError> {
    serde_json::from_slice(value)
        .map_err(|error| LeadError::Garbled { key: key.to_owned(), reason: error.to_string() })
}

fn id<T: std::str::FromStr<Err = ParseIdError>>(key: &str, text: &str) -> Result<T, LeadError> {
    text.parse().map_err(|error: ParseIdError| LeadError::Garbled {
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
