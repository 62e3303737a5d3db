//! What rows mean: the scheduler's state as keys and bytes, and back.
//!
//! `run/<run>`, `model/<run>/<model>`, `jobs/<run>/<stage>/<chunk>`, `worker/<worker>` and
//! `node/<node>`, JSON each. Works that never began have no row. The only place outside the engine
//! that knows the scheduler's types.

use std::collections::{BTreeMap, BTreeSet};

use clade_core::ids::{NodeName, ParseIdError, RunName, Term, WorkId, WorkerId};
use clade_core::schedule::{Node, Object, RunHead, State, Work, Worker};
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
        Object::Model(name, model) => {
            write(format!("model/{name}/{model}"), state.work(name, WorkId::Model(*model)))
        }
        Object::Jobs(name, stage, chunk) => {
            let begun = state.begun(name, *stage, *chunk);
            let value = if begun.is_empty() { None } else { Some(&begun) };
            write(format!("jobs/{name}/{stage}/{chunk}"), value)
        }
        Object::Worker(id) => write(format!("worker/{id}"), state.workers.get(id)),
        Object::Node(name) => write(format!("node/{name}"), state.nodes.get(name)),
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
    let mut heads = Vec::new();
    let mut works: Vec<(RunName, WorkId, Work)> = Vec::new();
    let mut workers = BTreeMap::new();
    let mut nodes = BTreeMap::new();
    for (key, value) in rows {
        let parts: Vec<&str> = key.splitn(3, '/').collect();
        match parts[..] {
            ["run", _] => heads.push(json::<RunHead>(key, value)?),
            ["model", run, model] => {
                works.push((id(key, run)?, WorkId::Model(id(key, model)?), json(key, value)?));
            }
            ["jobs", run, _] => {
                let run: RunName = id(key, run)?;
                let begun: BTreeMap<WorkId, Work> = json(key, value)?;
                works.extend(begun.into_iter().map(|(id, work)| (run.clone(), id, work)));
            }
            ["worker", worker] => {
                workers.insert(WorkerId(worker.to_owned()), json::<Worker>(key, value)?);
            }
            ["node", node] => {
                nodes.insert(NodeName(node.to_owned()), json::<Node>(key, value)?);
            }
            _ => {
                let reason = "no such kind of object".to_owned();
                return Err(LeadError::Garbled { key: key.clone(), reason });
            }
        }
    }
    Ok(State::restore(term, heads, works, workers, nodes))
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
