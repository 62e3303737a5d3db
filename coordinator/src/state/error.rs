//! Why the state cannot be opened, led or written.

use std::path::PathBuf;

use clade_core::ids::Term;

use super::{MOST_BYTES, MOST_KEYS};

/// Why the state cannot be used at all. Only people can mend these.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(
        "{} is held by another coordinator: stop that one, or give this one another --state",
        .0.display()
    )]
    Held(PathBuf),
    #[error("cannot open {}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error(
        "{place} belongs to the cluster `{found}` and this coordinator is of `{wanted}`: start it \
         with --cluster {found}, or give it a --state or --etcd-prefix of its own"
    )]
    OtherCluster { place: String, found: String, wanted: String },
    #[error(
        "{place} holds state of format {found} and this program knows formats up to {known}: \
         start a clade-coordinator at least as new as the one that wrote it"
    )]
    NewerFormat { place: String, found: u32, known: u32 },
    #[error(
        "{place} holds `{key}`, which no coordinator wrote: choose another --etcd-prefix, or \
         remove what is there"
    )]
    Foreign { place: String, key: String },
    #[error("{place} holds something unreadable at `{key}`: {reason}")]
    Garbled { place: String, key: String, reason: String },
    #[error("etcd at {url} refuses this coordinator: {reason}")]
    Refused { url: String, reason: String },
    #[error("{flag}: {reason}")]
    Flag { flag: &'static str, reason: String },
    #[error("cannot write the state")]
    Disk(#[from] Box<redb::Error>),
}

/// Why a leader could not read or write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeadError {
    /// Nothing was sent.
    #[error("{keys} keys in one transaction, and at most {MOST_KEYS} fit: split the event")]
    TooManyKeys { keys: usize },
    /// Nothing was sent.
    #[error("{bytes} bytes in one transaction, and at most {MOST_BYTES} fit: split the event")]
    TooLarge { bytes: usize },
    /// Whatever this process remembers of the state is worth nothing any more.
    #[error("no longer leads under term {term}: {why}")]
    Deposed { term: Term, why: String },
    #[error("the state holds something unreadable at `{key}`: {reason}")]
    Garbled { key: String, reason: String },
    #[error("cannot write the state; nothing was decided")]
    Disk(#[from] Box<redb::Error>),
}
