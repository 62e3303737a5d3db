//! Reads single pictures out of the tars of a manifest, and proves each by its checksum.
//!
//! Tars of ours must be as their indexes say: one that is not stops its reader, by name. An input tar is
//! somebody else's file: a picture that is not the one indexed is told apart from a sound one, and no more.
//! Tars in an object store are kept in a [`Cache`] where there is one, else read picture by picture.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use clade_core::job::Failure;
use clade_store::{DataShard, Store, StoreError};
use tokio::runtime::Handle;

use crate::cache::Cache;
use crate::index::{PairRow, checksum};
use crate::source::{Source, input_error};

/// Tars held open at a time.
const OPEN: usize = 32;

/// The tars of one manifest.
pub struct Shelf {
    store: Store,
    runtime: Handle,
    cache: Option<Arc<Cache>>,
    shards: Vec<DataShard>,
    /// Newest use last.
    open: Mutex<VecDeque<(usize, Arc<Source>)>>,
}

impl Shelf {
    pub fn new(
        store: Store,
        runtime: Handle,
        cache: Option<Arc<Cache>>,
        shards: Vec<DataShard>,
    ) -> Self {
        Self { store, runtime, cache, shards, open: Mutex::default() }
    }

    pub fn shard(&self, number: usize) -> &DataShard {
        &self.shards[number]
    }

    /// Reads the picture of a row into `into`; false if it is not the picture that was indexed.
    pub fn read(&self, number: usize, row: &PairRow, into: &mut Vec<u8>) -> Result<bool, Failure> {
        let DataShard { tar, in_store, sha256, .. } = self.shard(number);
        let source = self.source(number)?;
        if self.matches(&source, number, row, into)? {
            return Ok(true);
        }
        // A copy on this machine may have gone bad by itself: then the next one is sound.
        if let (Source::Copy { .. }, Some(cache), Some(sha256)) = (&*source, &self.cache, sha256) {
            tracing::warn!(tar, "a copy in the cache is not what it was: it is fetched anew");
            cache.discard(sha256);
            self.forget(number);
            let source = self.source(number)?;
            if self.matches(&source, number, row, into)? {
                return Ok(true);
            }
        }
        if !in_store {
            return Ok(false);
        }
        let (key, offset) = (&row.key, row.offset);
        let reason = format!("the picture of pair `{key}` at byte {offset} is not the one indexed");
        Err(StoreError::Malformed { key: tar.clone(), reason }.into())
    }

    /// Reads a picture, and tells whether it is the one that was indexed.
    fn matches(
        &self,
        source: &Source,
        number: usize,
        row: &PairRow,
        into: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        into.resize(row.length as usize, 0);
        match source.read_at(row.offset, into) {
            Ok(()) => Ok(checksum(into) == row.checksum),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(input_error(Path::new(&self.shard(number).tar), error)),
        }
    }

    fn forget(&self, number: usize) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(known, _)| *known != number);
    }

    /// Makes a tar ready to be read: opens it, and downloads it into the cache.
    pub fn prepare(&self, number: usize) -> Result<(), Failure> {
        self.source(number).map(|source| source.want())
    }

    fn source(&self, number: usize) -> Result<Arc<Source>, Failure> {
        if let Some(source) = self.known(number) {
            return Ok(source);
        }
        // Without the lock: a download takes its time, and the cache sees to it that there is one.
        let source = Arc::new(self.find(number)?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN {
            open.pop_front();
        }
        open.push_back((number, Arc::clone(&source)));
        Ok(source)
    }

    fn known(&self, number: usize) -> Option<Arc<Source>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(known, _)| *known == number)?;
        let found = open.remove(at)?;
        let source = Arc::clone(&found.1);
        open.push_back(found);
        Some(source)
    }

    fn find(&self, number: usize) -> Result<Source, Failure> {
        let DataShard { tar, in_store, bytes, sha256, .. } = self.shard(number);
        let source = if !in_store {
            Source::open_input(tar, &self.runtime)?
        } else if let Some(path) = self.store.local_path(tar) {
            let file =
                std::fs::File::open(path).map_err(|error| StoreError::from_io(tar, error))?;
            Source::File { name: tar.clone(), file }
        } else {
            let (store, runtime) = (self.store.clone(), self.runtime.clone());
            Source::Object { name: tar.clone(), store, key: tar.clone(), runtime }
        };
        let (Source::Object { store, key, .. }, Some(cache), Some(sha256)) =
            (&source, &self.cache, sha256)
        else {
            return Ok(source);
        };
        if !cache.takes(*bytes) {
            return Ok(source);
        }
        let file = cache.fetch::<CacheError>(sha256, *bytes, |path| {
            Ok(self.runtime.block_on(store.download(key, path, sha256))?)
        });
        match file {
            Ok(file) => Ok(Source::Copy { file }),
            // Somebody else's tar has changed: each of its pictures is judged by itself.
            Err(CacheError::Store(StoreError::Damaged { .. } | StoreError::Changed { .. }))
                if !in_store =>
            {
                tracing::warn!(tar, "the tar is not the one that was indexed");
                Ok(source)
            }
            Err(CacheError::Store(error)) => Err(error.into()),
            Err(CacheError::Disk(error)) => {
                tracing::warn!(tar, %error, "the cache cannot take it: it is read from afar");
                Ok(source)
            }
        }
    }
}

/// Why a tar is not in the cache.
enum CacheError {
    Store(StoreError),
    Disk(io::Error),
}

impl From<StoreError> for CacheError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for CacheError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}
