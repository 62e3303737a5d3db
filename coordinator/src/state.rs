//! Where decisions are kept: one interface, two backends.
//!
//! A [`Backend`] holds *rows*, keys and bytes, and lets one process at a time lead. Whoever leads
//! gets a [`Lead`], the only thing that can write. The embedded backend is one file that one
//! process can hold; the etcd backend elects among several. Nothing here knows what a row means
//! except `codec`, and nothing here decides anything.

pub(crate) mod codec;
mod embedded;
mod error;
mod etcd;
mod format;
mod identity;
pub(crate) mod options;

use std::collections::BTreeMap;
use std::time::Instant;

use clade_core::ids::Term;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub(crate) use error::{LeadError, OpenError};
pub(crate) use options::Options;

/// Everything that is kept, by key.
pub(crate) type Rows = BTreeMap<String, Vec<u8>>;

/// Keys that one transaction may write: etcd takes 128 operations, and ours adds its own.
pub(crate) const MOST_KEYS: usize = 100;

/// Bytes that one transaction may write: etcd takes requests of 1.5 MiB, envelope included.
pub(crate) const MOST_BYTES: usize = 1_400_000;

/// One change to one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put { key: String, value: Vec<u8> },
    Delete { key: String },
}

impl Write {
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }

    pub(crate) fn apply(self, rows: &mut Rows) {
        match self {
            Self::Put { key, value } => rows.insert(key, value),
            Self::Delete { key } => rows.remove(&key),
        };
    }
}

/// A cluster's name, for people, and its id, drawn by chance when its state began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) id: String,
}

/// Who leads, as everyone who can read the state is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leader {
    /// Where clients and workers reach it.
    pub(crate) address: String,
    pub(crate) term: Term,
}

/// What somebody who only looks on is told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Everything there is, whatever was told before.
    Anew { rows: Rows, leader: Option<Leader> },
    /// What one transaction wrote.
    Writes(Vec<Write>),
    /// Somebody else leads, or nobody does.
    Leader(Option<Leader>),
    /// Whatever was written before then has been told.
    Confirmed { as_of: Instant },
}

/// A place where state is kept.
#[tonic::async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Waits until this process leads. Safe to cancel: a lead that nobody took runs out.
    async fn campaign(&self) -> Result<Box<dyn Lead>, OpenError>;

    /// Looks on from now on. The first change is always [`Change::Anew`].
    fn follow(&self) -> Box<dyn Follow>;
}

/// The right to write, until it is lost.
#[tonic::async_trait]
pub(crate) trait Lead: Send + Sync {
    fn term(&self) -> Term;

    /// Whose state this is.
    fn cluster(&self) -> Cluster;

    /// Reads all rows, as the format of this program has them.
    async fn load(&mut self) -> Result<Rows, LeadError>;

    /// Writes all or nothing, durably. After an error other than a refusal of its size nobody can
    /// tell what is there but the next leader. Not safe to cancel: the lead may be lost then.
    async fn save(&mut self, writes: &[Write]) -> Result<(), LeadError>;

    /// Fires when this process may no longer act as the leader.
    fn lost(&self) -> CancellationToken;

    /// Whether it may act right now, by its own clock: a process that was stopped for a while
    /// finds out here before its timers do.
    fn is_held(&self) -> bool;

    /// Gives the lead up, so that nobody has to wait until it runs out.
    async fn resign(self: Box<Self>);
}

/// A view of the rows that is told every change.
#[tonic::async_trait]
pub(crate) trait Follow: Send {
    /// Waits for the next change, through whatever outages. A call that is dropped loses nothing but
    /// its work: a long listing would begin anew each time, so give it a task of its own.
    async fn next(&mut self) -> Change;
}

/// Opens the state, once what holds it answers; refuses one that is another cluster's.
pub(crate) async fn open(options: &Options) -> Result<Box<dyn Backend>, OpenError> {
    Ok(match &options.place {
        options::Place::Folder(folder) => {
            let embedded = embedded::Embedded::open(folder, &options.cluster)?;
            Box::new(embedded)
        }
        options::Place::Etcd(place) => {
            Box::new(etcd::Etcd::open(place, &options.cluster, &options.advertise).await?)
        }
    })
}

/// Refuses, before anything is sent, what etcd would refuse.
fn check_size(writes: &[Write]) -> Result<(), LeadError> {
    if writes.len() > MOST_KEYS {
        return Err(LeadError::TooManyKeys { keys: writes.len() });
    }
    let bytes = writes.iter().map(Write::bytes).sum();
    if bytes > MOST_BYTES {
        return Err(LeadError::TooLarge { bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
