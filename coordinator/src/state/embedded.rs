//! The embedded backend: one redb file, held by one process at a time.
//!
//! The file's lock is the election: whoever opens it leads, under the next term. What is saved is
//! on disk when `save` returns.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clade_core::ids::Term;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    TableDefinition, TableError, WriteTransaction,
};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::format::{FORMAT, migrate};
use super::identity::Identity;
use super::{
    Backend, Change, Cluster, Follow, Lead, LeadError, OpenError, Rows, Write, check_size,
};

const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// A boxed error of redb's, whichever it was.
fn disk(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

/// The open state file.
pub(crate) struct Embedded {
    database: Arc<Database>,
    path: PathBuf,
}

impl Embedded {
    /// Opens `folder`/state.redb, which no other process may hold.
    pub(crate) fn open(folder: &Path, cluster: &str) -> Result<Self, OpenError> {
        let path = folder.join("state.redb");
        let failed = |reason: String| OpenError::File { path: path.clone(), reason };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        let database = match Database::create(&path) {
            Ok(database) => Arc::new(database),
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::Held(path)),
            Err(error) => return Err(failed(error.to_string())),
        };
        let embedded = Self { database, path };
        embedded.identify(cluster)?;
        Ok(embedded)
    }

    /// Checks whose file it is; an empty one becomes `cluster`'s.
    fn identify(&self, cluster: &str) -> Result<(), OpenError> {
        let place = self.path.display().to_string();
        let writing = self.database.begin_write().map_err(disk)?;
        match meta(&writing, "cluster")? {
            Some(found) => Identity::decode(&place, "cluster", &found)?.check(&place, cluster),
            None => {
                // Files from before there were identities hold rows and no name.
                let is_empty = rows_in(&self.database.begin_read().map_err(disk)?)?.is_empty();
                let identity = Identity::draw(cluster, if is_empty { FORMAT } else { 0 });
                set_meta(&writing, "cluster", &identity.encode())?;
                Ok(writing.commit().map_err(disk)?)
            }
        }
    }

    /// Counts the term up and brings the rows to this program's format, durably.
    fn take_lead(&self) -> Result<(Term, Cluster), OpenError> {
        let place = self.path.display().to_string();
        let rows = rows_in(&self.database.begin_read().map_err(disk)?)?;
        let writing = self.database.begin_write().map_err(disk)?;
        let garbled = |reason: String| OpenError::Garbled {
            place: place.clone(),
            key: "term".to_owned(),
            reason,
        };
        let last: Term = match meta(&writing, "term")?.or_else(|| rows.get("term").cloned()) {
            Some(found) => {
                serde_json::from_slice(&found).map_err(|error| garbled(error.to_string()))?
            }
            None => Term(0),
        };
        let term = last.next();
        let identity = meta(&writing, "cluster")?.unwrap_or_default();
        let mut identity = Identity::decode(&place, "cluster", &identity)?;
        write(&writing, &migrate(identity.format, &rows))?;
        identity.format = FORMAT;
        set_meta(&writing, "cluster", &identity.encode())?;
        set_meta(&writing, "term", term.0.to_string().as_bytes())?;
        writing.commit().map_err(disk)?;
        Ok((term, identity.cluster()))
    }
}

#[tonic::async_trait]
impl Backend for Embedded {
    async fn campaign(&self) -> Result<Box<dyn Lead>, OpenError> {
        let (term, cluster) = block_in_place(|| self.take_lead())?;
        let (database, lost) = (Arc::clone(&self.database), CancellationToken::new());
        Ok(Box::new(EmbeddedLead { database, term, cluster, lost }))
    }

    fn follow(&self) -> Box<dyn Follow> {
        Box::new(Alone)
    }
}

/// The only process there can be: nobody else writes anything it could be told.
struct Alone;

#[tonic::async_trait]
impl Follow for Alone {
    async fn next(&mut self) -> Change {
        std::future::pending().await
    }
}

struct EmbeddedLead {
    database: Arc<Database>,
    term: Term,
    cluster: Cluster,
    lost: CancellationToken,
}

#[tonic::async_trait]
impl Lead for EmbeddedLead {
    fn term(&self) -> Term {
        self.term
    }

    fn cluster(&self) -> Cluster {
        self.cluster.clone()
    }

    async fn load(&mut self) -> Result<Rows, LeadError> {
        let read = || rows_in(&self.database.begin_read().map_err(disk)?);
        Ok(block_in_place(read)?)
    }

    async fn save(&mut self, writes: &[Write]) -> Result<(), LeadError> {
        check_size(writes)?;
        block_in_place(|| {
            let writing = self.database.begin_write().map_err(disk)?;
            write(&writing, writes)?;
            Ok(writing.commit().map_err(disk)?)
        })
    }

    fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    fn is_held(&self) -> bool {
        true
    }

    async fn resign(self: Box<Self>) {}
}

fn meta(writing: &WriteTransaction, key: &str) -> Result<Option<Vec<u8>>, Box<redb::Error>> {
    let table = writing.open_table(META).map_err(disk)?;
    let found = table.get(key).map_err(disk)?;
    Ok(found.map(|value| value.value().to_vec()))
}

fn set_meta(writing: &WriteTransaction, key: &str, value: &[u8]) -> Result<(), Box<redb::Error>> {
    writing.open_table(META).map_err(disk)?.insert(key, value).map_err(disk)?;
    Ok(())
}

fn rows_in(reading: &ReadTransaction) -> Result<Rows, Box<redb::Error>> {
    let table = match reading.open_table(ROWS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Rows::new()),
        Err(error) => return Err(disk(error)),
    };
    let mut rows = Rows::new();
    for row in table.iter().map_err(disk)? {
        let (key, value) = row.map_err(disk)?;
        rows.insert(key.value().to_owned(), value.value().to_vec());
    }
    Ok(rows)
}

fn write(writing: &WriteTransaction, writes: &[Write]) -> Result<(), Box<redb::Error>> {
    let mut table = writing.open_table(ROWS).map_err(disk)?;
    for change in writes {
        match change {
            Write::Put { key, value } => {
                table.insert(key.as_str(), value.as_slice()).map_err(disk)?;
            }
            Write::Delete { key } => {
                table.remove(key.as_str()).map_err(disk)?;
            }
        }
    }
    Ok(())
}
