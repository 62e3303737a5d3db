//! The embedded store: one redb file, one key per object, held by one process at a time.
//!
//! `run/<run>`, `work/<run>/<work>`, `worker/<worker>` and `term`. A transaction holds exactly
//! what one event changed and is on disk when [`Db::save`] returns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clade_core::ids::{RunName, Term, WorkId, WorkerId};
use clade_core::schedule::{Object, Run, RunHead, State, Work, Worker};
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::de::DeserializeOwned;

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(
        "{} is held by another coordinator: stop that one, or give this one another --state",
        .0.display()
    )]
    Held(PathBuf),
    #[error("cannot open {}: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    #[error("the state holds something unreadable at `{key}`: {reason}")]
    Garbled { key: String, reason: String },
    #[error("cannot write the state; nothing was decided: {0}")]
    Write(Box<redb::Error>),
    #[error("cannot encode the state: {0}")]
    Encode(#[from] serde_json::Error),
}

macro_rules! write_errors {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StateError {
            fn from(error: redb::$error) -> Self {
                Self::Write(Box::new(error.into()))
            }
        })*
    };
}

write_errors!(TransactionError, TableError, StorageError, CommitError);

/// The open state file.
pub(crate) struct Db {
    database: Database,
}

impl Db {
    /// Opens `folder`/state.redb, which no other process may hold.
    pub(crate) fn open(folder: &Path) -> Result<Self, StateError> {
        let path = folder.join("state.redb");
        let failed = |reason: String| StateError::Open { path: path.clone(), reason };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        match Database::create(&path) {
            Ok(database) => Ok(Self { database }),
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(StateError::Held(path)),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Reads the whole state and takes the lead under the next term, durably.
    pub(crate) fn take_lead(&self) -> Result<(State, Term), StateError> {
        let mut state = State::default();
        let writing = self.database.begin_write()?;
        {
            let mut table = writing.open_table(OBJECTS)?;
            let last: Term = match table.get("term")? {
                Some(found) => decode("term", found.value())?,
                None => Term(0),
            };
            let term = last.next();
            table.insert("term", serde_json::to_vec(&term)?.as_slice())?;
            state.term = term;
        }
        writing.commit()?;
        let reading = self.database.begin_read()?;
        let table = reading.open_table(OBJECTS)?;
        let mut works: BTreeMap<RunName, BTreeMap<WorkId, Work>> = BTreeMap::new();
        for row in table.iter()? {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            let parts: Vec<&str> = key.splitn(3, '/').collect();
            match parts[..] {
                ["term"] => (),
                ["run", _] => {
                    let head: RunHead = decode(key, value)?;
                    let name = head.spec.name().clone();
                    state.runs.insert(name, Run { head, works: BTreeMap::new() });
                }
                ["work", run, work] => {
                    let (run, work) = (id(key, run)?, id(key, work)?);
                    works.entry(run).or_default().insert(work, decode(key, value)?);
                }
                ["worker", worker] => {
                    let worker_id = WorkerId(worker.to_owned());
                    state.workers.insert(worker_id, decode::<Worker>(key, value)?);
                }
                _ => {
                    let reason = "no such kind of object".to_owned();
                    return Err(StateError::Garbled { key: key.to_owned(), reason });
                }
            }
        }
        for (name, works) in works {
            if let Some(run) = state.runs.get_mut(&name) {
                run.works = works;
            }
        }
        let term = state.term;
        Ok((state, term))
    }

    /// Writes what changed, in one transaction.
    pub(crate) fn save(&self, state: &State, changed: &BTreeSet<Object>) -> Result<(), StateError> {
        if changed.is_empty() {
            return Ok(());
        }
        let writing = self.database.begin_write()?;
        {
            let mut table = writing.open_table(OBJECTS)?;
            for object in changed {
                let (key, value) = encode(state, object)?;
                match value {
                    Some(value) => {
                        table.insert(key.as_str(), value.as_slice())?;
                    }
                    None => {
                        table.remove(key.as_str())?;
                    }
                }
            }
        }
        writing.commit()?;
        Ok(())
    }
}

/// The key of an object, and its value unless it is gone.
fn encode(state: &State, object: &Object) -> Result<(String, Option<Vec<u8>>), StateError> {
    Ok(match object {
        Object::Run(name) => {
            let value =
                state.runs.get(name).map(|run| serde_json::to_vec(&run.head)).transpose()?;
            (format!("run/{name}"), value)
        }
        Object::Work(name, work) => {
            let value = state.work(name, *work).map(serde_json::to_vec).transpose()?;
            (format!("work/{name}/{work}"), value)
        }
        Object::Worker(id) => {
            let value = state.workers.get(id).map(serde_json::to_vec).transpose()?;
            (format!("worker/{id}"), value)
        }
    })
}

fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(value)
        .map_err(|error| StateError::Garbled { key: key.to_owned(), reason: error.to_string() })
}

fn id<T: std::str::FromStr<Err = clade_core::ids::ParseIdError>>(
    key: &str,
    text: &str,
) -> Result<T, StateError> {
    text.parse().map_err(|error: clade_core::ids::ParseIdError| StateError::Garbled {
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
