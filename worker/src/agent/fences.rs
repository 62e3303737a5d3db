//! What this machine has seen: the highest term, and the highest incarnation of every work.
//!
//! Kept in a file that survives the agent, and written before an order is obeyed: a deposed
//! leader's late order finds no hand to carry it out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clade_core::ids::{Fence, Incarnation, Term};
use serde::{Deserialize, Serialize};

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seen {
    term: Term,
    /// By `<run>/<work>`.
    incarnations: BTreeMap<String, Incarnation>,
}

#[derive(Debug)]
pub(super) struct Fences {
    path: PathBuf,
    seen: Seen,
}

/// Why an order is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "the coordinator speaks with term {found}, but term {seen} was seen here: it was deposed, \
         or its state was removed (then remove {} too)", file.display()
    )]
    Term { found: Term, seen: Term, file: PathBuf },
    #[error(
        "incarnation {found} is below {seen}, which was seen here: the order is stale, or the \
         coordinator's state was removed (then remove {} too)", file.display()
    )]
    Incarnation { found: Incarnation, seen: Incarnation, file: PathBuf },
    #[error("cannot write {}: {reason}", file.display())]
    NotSaved { file: PathBuf, reason: String },
}

impl Fences {
    /// Reads `path`; a file that is not there has seen nothing.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let seen = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, seen })
    }

    /// Takes note of a coordinator's term, or refuses it.
    pub(super) fn admit_term(&mut self, term: Term) -> Result<(), Refusal> {
        let seen = self.seen.term;
        if term < seen {
            return Err(Refusal::Term { found: term, seen, file: self.path.clone() });
        }
        if term > seen {
            let next = Seen { term, ..self.seen.clone() };
            self.replace(next)?;
        }
        Ok(())
    }

    /// Takes note of a gang's incarnation, or refuses it.
    pub(super) fn admit(&mut self, fence: &Fence) -> Result<(), Refusal> {
        let work = format!("{}/{}", fence.run, fence.work);
        let found = fence.incarnation;
        let seen = self.seen.incarnations.get(&work).copied();
        match seen {
            Some(seen) if found < seen => {
                Err(Refusal::Incarnation { found, seen, file: self.path.clone() })
            }
            Some(seen) if found == seen => Ok(()),
            Some(_) | None => {
                let mut next = self.seen.clone();
                next.incarnations.insert(work, found);
                self.replace(next)
            }
        }
    }

    fn replace(&mut self, next: Seen) -> Result<(), Refusal> {
        let bytes = serde_json::to_vec(&next).expect("keys are strings");
        write_atomically(&self.path, &bytes).map_err(|error| Refusal::NotSaved {
            file: self.path.clone(),
            reason: error.to_string(),
        })?;
        self.seen = next;
        Ok(())
    }
}

/// Replaces a file so that a crash leaves the old content or the new.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(incarnation: u64) -> Fence {
        Fence {
            run: "clipart".parse().unwrap(),
            work: "expert-1".parse().unwrap(),
            incarnation: Incarnation(incarnation),
        }
    }

    #[test]
    fn lower_terms_and_incarnations_are_refused_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fences.json");
        let mut fences = Fences::open(path.clone()).unwrap();
        fences.admit_term(Term(4)).unwrap();
        fences.admit(&fence(7)).unwrap();
        fences.admit(&fence(7)).unwrap();

        let mut fences = Fences::open(path).unwrap();
        assert!(matches!(fences.admit_term(Term(3)), Err(Refusal::Term { .. })));
        assert!(matches!(fences.admit(&fence(6)), Err(Refusal::Incarnation { .. })));
        fences.admit_term(Term(4)).unwrap();
        fences.admit(&fence(8)).unwrap();
    }

    #[test]
    fn what_cannot_be_saved_is_not_obeyed() {
        let folder = tempfile::tempdir().unwrap();
        let mut fences = Fences::open(folder.path().join("gone/fences.json")).unwrap();
        assert!(matches!(fences.admit(&fence(1)), Err(Refusal::NotSaved { .. })));
    }
}
