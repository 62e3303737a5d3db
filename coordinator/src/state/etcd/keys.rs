//! Where things lie below the prefix.
//!
//! `rows/…` is the state; beside it lie whose it is, who leads, the last term and the last
//! transaction.

use clade_core::ids::Term;

/// All keys of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What every key of the cluster begins with.
    pub(super) fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// Name, id and format.
    pub(super) fn cluster(&self) -> String {
        format!("{}/cluster", self.prefix)
    }

    /// Held by a lease; its create revision is the guard of every transaction of that leader.
    pub(super) fn leader(&self) -> String {
        format!("{}/leader", self.prefix)
    }

    pub(super) fn term(&self) -> String {
        format!("{}/term", self.prefix)
    }

    /// Names the last transaction, so that one of unknown outcome can be found out about.
    pub(super) fn marker(&self) -> String {
        format!("{}/marker", self.prefix)
    }

    pub(super) fn rows(&self) -> String {
        format!("{}/rows/", self.prefix)
    }

    pub(super) fn row(&self, key: &str) -> String {
        format!("{}/rows/{key}", self.prefix)
    }

    /// The row that a full key names, if it is one.
    pub(super) fn row_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)?.strip_prefix("/rows/")
    }
}

/// The marker of one transaction of one leader.
pub(super) fn mark(term: Term, sequence: u64) -> String {
    format!("{term}/{sequence}")
}
