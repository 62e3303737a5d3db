//! Reading a large object from one end to the other.
//!
//! The object is fetched in ranges, a few of them ahead of the reader, each tried again on its
//! own; all belong to one version of the object, or reading fails.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{Error, GetOptions};
use tokio::task::JoinHandle;

use crate::answer::is_beyond_end;
use crate::error::StoreError;
use crate::store::{Store, Version, path};

/// How an object is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderOptions {
    /// Bytes per request.
    pub chunk: u64,
    /// Requests under way at a time: at most this many chunks are in memory, and the one handed out.
    pub ahead: usize,
    /// Read this version; without one, whichever is there when reading begins.
    pub version: Option<Version>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { chunk: 8 << 20, ahead: 3, version: None }
    }
}

/// Hands out the bytes of an object in order.
pub struct ObjectReader {
    source: Source,
    /// First byte that nobody has been sent for.
    begun: u64,
    end: u64,
    ahead: usize,
    under_way: VecDeque<Fetch>,
    /// First byte that was not handed out yet.
    position: u64,
    has_failed: bool,
}

#[derive(Clone)]
struct Source {
    store: Store,
    key: String,
    path: Key,
    version: Version,
    chunk: u64,
}

/// A request under way, which ends with its owner.
struct Fetch(JoinHandle<Result<Bytes, StoreError>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Store {
    /// Begins to read `range` of the object `key`.
    pub async fn reader(
        &self,
        key: &str,
        range: impl RangeBounds<u64>,
    ) -> Result<ObjectReader, StoreError> {
        self.reader_with(key, range, ReaderOptions::default()).await
    }

    /// The same in other steps, or of a version that is known.
    pub async fn reader_with(
        &self,
        key: &str,
        range: impl RangeBounds<u64>,
        options: ReaderOptions,
    ) -> Result<ObjectReader, StoreError> {
        let ReaderOptions { chunk, ahead, version } = options;
        let version = match version {
            Some(version) => version,
            None => {
                let missing = || StoreError::NotFound { key: key.to_owned() };
                self.version(key).await?.ok_or_else(missing)?
            }
        };
        let begin = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => version.bytes,
        };
        if begin > end || end > version.bytes {
            let reason =
                format!("bytes {begin}..{end} were asked for, and it has {}", version.bytes);
            return Err(StoreError::Malformed { key: key.to_owned(), reason });
        }
        let source = Source {
            store: self.clone(),
            path: path(key)?,
            key: key.to_owned(),
            version,
            chunk: chunk.max(1),
        };
        let (ahead, under_way) = (ahead.max(1), VecDeque::new());
        Ok(ObjectReader {
            source,
            begun: begin,
            end,
            ahead,
            under_way,
            position: begin,
            has_failed: false,
        })
    }
}

impl ObjectReader {
    /// The version of the object that is read.
    pub const fn version(&self) -> &Version {
        &self.source.version
    }

    /// Where in the object the next bytes begin.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, or nothing at the end. Once it has failed it keeps failing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.has_failed {
            let reason = "reading it failed before".to_owned();
            return Err(StoreError::Malformed { key: self.source.key.clone(), reason });
        }
        while self.under_way.len() < self.ahead && self.begun < self.end {
            let range = self.begun..self.end.min(self.begun.saturating_add(self.source.chunk));
            self.begun = range.end;
            let source = self.source.clone();
            let fetch = tokio::spawn(async move { source.fetch(range.start, range.end).await });
            self.under_way.push_back(Fetch(fetch));
        }
        let Some(first) = self.under_way.front_mut() else {
            return Ok(None);
        };
        // The request stays in its place while it is waited for: a cancelled call loses nothing.
        let fetched = (&mut first.0).await.unwrap_or_else(|error| {
            Err(StoreError::from_io(&self.source.key, std::io::Error::other(error)))
        });
        self.under_way.pop_front();
        match fetched {
            Ok(bytes) => {
                self.position += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Err(error) => {
                self.has_failed = true;
                self.under_way.clear();
                Err(error)
            }
        }
    }
}

impl Source {
    async fn fetch(&self, begin: u64, end: u64) -> Result<Bytes, StoreError> {
        let Self { store, key, path, version, chunk: _ } = self;
        let changed = || StoreError::Changed { key: key.clone(), offset: begin };
        let get = || async {
            let options = GetOptions {
                range: Some((begin..end).into()),
                if_match: version.etag(),
                ..GetOptions::default()
            };
            let found = store.backend.get_opts(path, options).await?;
            // Not every server minds `If-Match`.
            let is_other = found.meta.size != version.bytes
                || version.has_etag
                    && found.meta.e_tag.as_ref().is_some_and(|tag| *tag != version.tag);
            if is_other { Ok(None) } else { found.bytes().await.map(Some) }
        };
        match store.retrier.run(get).await.result {
            Ok(Some(bytes)) if bytes.len() as u64 == end - begin => Ok(bytes),
            Ok(Some(_) | None) | Err(Error::Precondition { .. } | Error::NotFound { .. }) => {
                Err(changed())
            }
            Err(error) if is_beyond_end(&error) => Err(changed()),
            Err(error) => Err(store.error(key, error)),
        }
    }
}
