//! The coordinators' database: rows of text, guarded by who leads.

use std::collections::{BTreeMap, BTreeSet};

use clade_core::ids::{NodeName, RunName, Term, WorkId, WorkerId};
use clade_core::schedule::{Object, Run, RunHead, State, Work};
use serde::de::DeserializeOwned;
use serde_json::{from_str, to_string};

/// Everything saved. A transaction of one that no longer leads is refused.
#[derive(Debug, Default)]
pub(crate) struct Database {
    rows: BTreeMap<String, String>,
    /// The term that may write.
    pub(crate) guard: Term,
}

impl Database {
    /// Writes what changed, in one transaction, if `term` still leads.
    pub(crate) fn save(&mut self, term: Term, state: &State, changed: &BTreeSet<Object>) -> bool {
        if term != self.guard {
            return false;
        }
        for object in changed {
            let (key, value) = row(state, object);
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        true
    }

    /// The state as a new leader reads it, with the last leader's term.
    pub(crate) fn load(&self, term: Term) -> State {
        let (mut heads, mut works) = (Vec::<RunHead>::new(), Vec::new());
        let (mut workers, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in &self.rows {
            let parts: Vec<&str> = key.splitn(3, '/').collect();
            match parts[..] {
                ["run", _] => heads.push(read(key, value)),
                ["model", run, id] => {
                    works.push((name(run), id.parse().expect("a model"), read(key, value)));
                }
                ["jobs", run, _] => {
                    let jobs: BTreeMap<WorkId, Work> = read(key, value);
                    works.extend(jobs.into_iter().map(|(id, work)| (name(run), id, work)));
                }
                ["worker", id] => {
                    workers.insert(WorkerId(id.to_owned()), read(key, value));
                }
                ["node", id] => {
                    nodes.insert(NodeName(id.to_owned()), read(key, value));
                }
                _ => unreachable!("no row is called {key}"),
            }
        }
        State::restore(term, heads, works, workers, nodes)
    }
}

fn name(run: &str) -> RunName {
    run.parse().expect("a run's name")
}

fn read<T: DeserializeOwned>(key: &str, value: &str) -> T {
    from_str(value).unwrap_or_else(|error| panic!("{key} is not read back: {error}: {value}"))
}

/// The key of an object, and its text unless it is gone.
fn row(state: &State, object: &Object) -> (String, Option<String>) {
    let text = "state is plain data with text keys";
    match object {
        Object::Run(run) => {
            let head = state.runs.get(run).map(|run: &Run| to_string(&run.head).expect(text));
            (format!("run/{run}"), head)
        }
        Object::Model(run, model) => {
            let work = state.work(run, WorkId::Model(*model));
            (format!("model/{run}/{model}"), work.map(|work| to_string(work).expect(text)))
        }
        Object::Jobs(run, stage, chunk) => {
            let begun = state.begun(run, *stage, *chunk);
            let value = (!begun.is_empty()).then(|| to_string(&begun).expect(text));
            (format!("jobs/{run}/{stage}.{chunk}"), value)
        }
        Object::Worker(id) => {
            let worker = state.workers.get(id).map(|worker| to_string(worker).expect(text));
            (format!("worker/{id}"), worker)
        }
        Object::Node(id) => {
            let node = state.nodes.get(id).map(|node| to_string(node).expect(text));
            (format!("node/{id}"), node)
        }
    }
}
