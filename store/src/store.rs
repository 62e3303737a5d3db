//! The handle to one object store: small objects, manifests, listing.
//!
//! Keys are plain `/`-separated names (see [`crate::keys`]). Writes are all or nothing: a reader
//! sees the whole object or none, whenever the writer is killed.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clade_core::ids::Digest;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::digest;
use crate::error::StoreError;

/// An object store and the address it was opened by. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) backend: Arc<dyn ObjectStore>,
    uri: Arc<str>,
    /// Folder of the file backend.
    root: Option<Arc<std::path::Path>>,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub key: String,
    pub bytes: u64,
}

impl Store {
    /// Opens `file:///absolute/path`, creating the folder.
    pub fn open(uri: &str) -> Result<Self, StoreError> {
        let unsupported = || StoreError::Unsupported { uri: uri.to_owned() };
        let root = PathBuf::from(uri.strip_prefix("file://").ok_or_else(unsupported)?);
        if !root.is_absolute() {
            return Err(unsupported());
        }
        std::fs::create_dir_all(&root).map_err(|error| StoreError::from_io(uri, error))?;
        let backend = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| StoreError::new(uri, error))?
            .with_fsync(true);
        Ok(Self { backend: Arc::new(backend), uri: uri.into(), root: Some(root.into()) })
    }

    /// A store that is gone with the process, for tests.
    pub fn in_memory() -> Self {
        Self { backend: Arc::new(InMemory::new()), uri: "memory:".into(), root: None }
    }

    /// The address it was opened by.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Where `key` lies on this machine's disk, if it does: for messages and for reading in place.
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        self.root.as_ref().map(|root| root.join(key))
    }

    /// Creates an object; refuses if one is there.
    pub async fn put_new(&self, key: &str, bytes: impl Into<Bytes>) -> Result<Digest, StoreError> {
        self.put_mode(key, bytes.into(), PutMode::Create).await
    }

    /// Writes an object over whatever is there: for pointers and logs only.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<Digest, StoreError> {
        self.put_mode(key, bytes.into(), PutMode::Overwrite).await
    }

    async fn put_mode(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<Digest, StoreError> {
        let digest = digest(&bytes);
        self.backend
            .put_opts(&path(key)?, bytes.into(), PutOptions::from(mode))
            .await
            .map_err(|error| StoreError::new(key, error))?;
        Ok(digest)
    }

    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let of = |error| StoreError::new(key, error);
        self.backend.get(&path(key)?).await.map_err(of)?.bytes().await.map_err(of)
    }

    /// Reads an object and refuses it unless its digest is the expected one.
    pub async fn get_verified(&self, key: &str, expected: &Digest) -> Result<Bytes, StoreError> {
        let bytes = self.get(key).await?;
        let found = digest(&bytes);
        if found == *expected {
            Ok(bytes)
        } else {
            Err(StoreError::Damaged { key: key.to_owned(), expected: *expected, found })
        }
    }

    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = self
            .backend
            .get_range(&path(key)?, range)
            .await
            .map_err(|error| StoreError::new(key, error))?;
        if bytes.len() as u64 == wanted {
            Ok(bytes)
        } else {
            let reason = format!("{} bytes where {wanted} were asked for", bytes.len());
            Err(StoreError::Malformed { key: key.to_owned(), reason })
        }
    }

    /// Bytes of an object, or nothing if there is none.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.backend.head(&path(key)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StoreError::new(key, error)),
        }
    }

    /// Every whole object below the folder `prefix`, sorted by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = self
            .backend
            .list(Some(&path(prefix)?))
            .map_ok(|meta| Entry { key: meta.location.to_string(), bytes: meta.size })
            .try_collect()
            .await
            .map_err(|error| StoreError::new(prefix, error))?;
        entries.sort();
        Ok(entries)
    }

    /// Removes an object; removing what is not there is no error.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.backend.delete(&path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::new(key, error)),
        }
    }

    /// Removes everything below the folder `prefix`, half-written objects included.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        for entry in self.list(prefix).await? {
            self.delete(&entry.key).await?;
        }
        if let Some(folder) = self.local_path(prefix) {
            match tokio::fs::remove_dir_all(&folder).await {
                Ok(()) => (),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                Err(error) => return Err(StoreError::from_io(prefix, error)),
            }
        }
        Ok(())
    }

    /// Creates a manifest: the step that makes what it names exist.
    pub async fn put_manifest<T: Serialize + Sync>(
        &self,
        key: &str,
        value: &T,
    ) -> Result<Digest, StoreError> {
        self.put_new(key, encode(key, value)?).await
    }

    /// Reads a manifest and its digest.
    pub async fn get_manifest<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<(T, Digest), StoreError> {
        let bytes = self.get(key).await?;
        Ok((decode(key, &bytes)?, digest(&bytes)))
    }
}

/// The bytes of a manifest: JSON for people too, the same for the same value.
pub(crate) fn encode<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| StoreError::Malformed {
        key: key.to_owned(),
        reason: error.to_string(),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Malformed { key: key.to_owned(), reason: error.to_string() })
}

pub(crate) fn path(key: &str) -> Result<Key, StoreError> {
    Key::parse(key)
        .map_err(|error| StoreError::Malformed { key: key.to_owned(), reason: error.to_string() })
}
