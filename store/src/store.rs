//! The handle to one object store: small objects, manifests, listing.
//!
//! Keys are plain `/`-separated names (see [`crate::keys`]). Writes are all or nothing: a reader
//! sees the whole object or none, whenever the writer is killed.
//!
//! # Creating, and lost answers
//!
//! [`Store::put_new`] and [`Store::put_manifest`] have one winner among any number of creators. A
//! network may lose the answer of a try that was carried out; the next try then finds the object
//! that we wrote ourselves. After such a try, and only then, an object of equal bytes counts as
//! ours. Creators of equal bytes may therefore both be told that they won, if an answer was lost:
//! whoever needs to be the only one writes something of its own into the object. A creator whose
//! tries all failed may have created the object all the same.
//!
//! [`Store::update`] keeps to the same rule.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clade_core::ids::Digest;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{
    Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    PutResult, UpdateVersion,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{is_beyond_end, is_missing_object};
use crate::backend::{Address, Backend, Place};
use crate::digest::digest;
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::retry::{Retrier, Tried};

/// Keys that one request removes at most.
const DELETED_AT_ONCE: usize = 1000;

/// Times a creator begins anew because what was in its way is gone when it looks.
const CREATIONS: usize = 3;

/// An object store and the address it was opened by. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) backend: Arc<dyn ObjectStore>,
    pub(crate) opened: Backend,
    pub(crate) place: Place,
    pub(crate) retrier: Arc<Retrier>,
}

/// Says where it lies: how it was let in stays inside.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.uri()).finish()
    }
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub key: String,
    pub bytes: u64,
}

/// One version of an object: two of equal tags hold the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    pub bytes: u64,
    /// The entity tag, or the time of the last change where the backend has no tags.
    pub tag: String,
    pub(crate) has_etag: bool,
    /// Some backends count versions beside tagging them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<String>,
}

impl Version {
    fn of(meta: ObjectMeta) -> Self {
        let ObjectMeta { location: _, last_modified, size, e_tag, version } = meta;
        Self {
            bytes: size,
            has_etag: e_tag.is_some(),
            tag: e_tag.unwrap_or_else(|| last_modified.to_string()),
            generation: version,
        }
    }

    /// The tag to pin a read to, if there is one.
    pub(crate) fn etag(&self) -> Option<String> {
        self.has_etag.then(|| self.tag.clone())
    }
}

impl Store {
    /// Opens `file:///absolute/path`, creating the folder, or `s3://bucket/prefix`,
    /// `gs://bucket/prefix`, `az://container/prefix`, with settings from the environment.
    ///
    /// A bucket is not spoken to yet: [`Store::check`] does.
    pub fn open(uri: &str) -> Result<Self, StoreError> {
        Self::open_with(uri, &StoreOptions::default())
    }

    /// The same with other patience, or settings that go before the environment's.
    pub fn open_with(uri: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        if let Address::Folder(root) = Address::parse(uri)? {
            std::fs::create_dir_all(&root).map_err(|error| StoreError::from_io(uri, error))?;
        }
        Self::open_existing(uri, options)
    }

    /// The same without creating a folder.
    pub(crate) fn open_existing(uri: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let (kind, backend);
        match Address::parse(uri)? {
            Address::Folder(root) => {
                let place = Place { kind: crate::backend::Kind::File, uri: uri.into() };
                backend = Backend::folder(&place, &root)?;
                kind = place.kind;
            }
            Address::Bucket { kind: service, bucket, prefix } => {
                let place = Place { kind: service, uri: uri.into() };
                backend = Backend::bucket(&place, bucket, prefix, options)?;
                kind = service;
            }
        }
        let retrier =
            if kind.is_remote() { Retrier::new(options.retry.clone()) } else { Retrier::never() };
        let place = Place { kind, uri: uri.into() };
        Ok(Self::new(backend, place, retrier))
    }

    /// A store that is gone with the process, for tests.
    pub fn in_memory() -> Self {
        Self::new(Backend::memory(), Place::memory(), Retrier::never())
    }

    fn new(opened: Backend, place: Place, retrier: Retrier) -> Self {
        let backend = Arc::clone(&opened.objects);
        Self { backend, opened, place, retrier: Arc::new(retrier) }
    }

    /// The address it was opened by.
    pub fn uri(&self) -> &str {
        &self.place.uri
    }

    /// Where `key` lies on this machine's disk, if it does: for messages and for reading in place.
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        self.opened.root.as_ref().map(|root| root.join(key))
    }

    pub(crate) fn error(&self, key: &str, error: Error) -> StoreError {
        StoreError::new(&self.place, key, error)
    }

    /// Runs a request that may be repeated, as often as it takes.
    pub(crate) async fn repeat<T, F>(
        &self,
        key: &str,
        attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        self.retrier.run(attempt).await.result.map_err(|error| self.error(key, error))
    }

    /// Creates an object; refuses if one is there.
    pub async fn put_new(&self, key: &str, bytes: impl Into<Bytes>) -> Result<Digest, StoreError> {
        let (path, bytes) = (path(key)?, bytes.into());
        let digest = digest(&bytes);
        for _ in 0..CREATIONS {
            let Tried { result, in_doubt } = self.put_tried(&path, &bytes, PutMode::Create).await;
            match result {
                Ok(_) => return Ok(digest),
                Err(error @ Error::AlreadyExists { .. }) if in_doubt => match self.get(key).await {
                    Ok(found) if found == bytes => return Ok(digest),
                    Ok(_) => return Err(self.error(key, error)),
                    Err(StoreError::NotFound { .. }) => (),
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(self.error(key, error)),
            }
        }
        Err(StoreError::Conflict { key: key.to_owned() })
    }

    /// Writes an object over whatever is there: for pointers and logs only.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<Digest, StoreError> {
        let bytes = bytes.into();
        self.put_payload(key, bytes.clone().into()).await?;
        Ok(digest(&bytes))
    }

    pub(crate) async fn put_payload(
        &self,
        key: &str,
        payload: PutPayload,
    ) -> Result<(), StoreError> {
        let path = path(key)?;
        self.repeat(key, || self.backend.put(&path, payload.clone())).await?;
        Ok(())
    }

    /// Replaces the version of an object that `expected` is, and no other.
    ///
    /// The file backend cannot, and says so.
    pub async fn update(
        &self,
        key: &str,
        bytes: impl Into<Bytes>,
        expected: &Version,
    ) -> Result<Version, StoreError> {
        let (path, bytes) = (path(key)?, bytes.into());
        let known = UpdateVersion { e_tag: expected.etag(), version: expected.generation.clone() };
        let Tried { result, in_doubt } =
            self.put_tried(&path, &bytes, PutMode::Update(known)).await;
        match result {
            Ok(PutResult { e_tag, version, .. }) => Ok(Version {
                bytes: bytes.len() as u64,
                has_etag: e_tag.is_some(),
                tag: e_tag.unwrap_or_default(),
                generation: version,
            }),
            Err(
                Error::Precondition { .. } | Error::NotFound { .. } | Error::AlreadyExists { .. },
            ) => match if in_doubt { self.get_version(key).await } else { Ok(None) } {
                Ok(Some((found, version))) if found == bytes => Ok(version),
                Ok(_) => Err(StoreError::Conflict { key: key.to_owned() }),
                Err(error) => Err(error),
            },
            Err(Error::NotImplemented { .. }) => Err(StoreError::Unusable {
                uri: self.uri().to_owned(),
                reason: format!(
                    "`{key}` cannot be replaced only if nobody else has: this kind of store has no \
                     conditional updates; an object store has"
                ),
            }),
            Err(error) => Err(self.error(key, error)),
        }
    }

    async fn put_tried(&self, path: &Key, bytes: &Bytes, mode: PutMode) -> Tried<PutResult> {
        let put = || async {
            let options = PutOptions::from(mode.clone());
            self.backend.put_opts(path, bytes.clone().into(), options).await
        };
        self.retrier.run(put).await
    }

    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let path = path(key)?;
        self.repeat(key, || async { self.backend.get(&path).await?.bytes().await }).await
    }

    /// An object and its version, or nothing if there is none.
    async fn get_version(&self, key: &str) -> Result<Option<(Bytes, Version)>, StoreError> {
        let path = path(key)?;
        let read = self.repeat(key, || async {
            let found = self.backend.get(&path).await?;
            let version = Version::of(found.meta.clone());
            Ok((found.bytes().await?, version))
        });
        match read.await {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
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
        let path = path(key)?;
        let wanted = range.end.saturating_sub(range.start);
        let malformed = |reason| StoreError::Malformed { key: key.to_owned(), reason };
        let get = || async {
            let options = GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
            self.backend.get_opts(&path, options).await?.bytes().await
        };
        match self.retrier.run(get).await.result {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(bytes) => {
                Err(malformed(format!("{} bytes where {wanted} were asked for", bytes.len())))
            }
            Err(error) if is_beyond_end(&error) => {
                Err(malformed(format!("it ends before byte {}", range.start)))
            }
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// Bytes of an object, or nothing if there is none.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.version(key).await?.map(|version| version.bytes))
    }

    /// The version of an object that is there now, or nothing if there is none.
    pub async fn version(&self, key: &str) -> Result<Option<Version>, StoreError> {
        let path = path(key)?;
        match self.repeat(key, || self.backend.head(&path)).await {
            Ok(meta) => Ok(Some(Version::of(meta))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every whole object below the folder `prefix`, sorted by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let folder = path(prefix)?;
        let found = Mutex::new(Vec::new());
        let listed = || found.lock().unwrap_or_else(PoisonError::into_inner);
        let list = || async {
            let mut objects = match begin_or_go_on(&mut listed()) {
                Some(last) => self.backend.list_with_offset(Some(&folder), &last),
                None => self.backend.list(Some(&folder)),
            };
            while let Some(ObjectMeta { location, size, .. }) = objects.try_next().await? {
                listed().push((location, size));
            }
            Ok(())
        };
        self.repeat(prefix, list).await?;
        let mut entries: Vec<_> = std::mem::take(&mut *listed())
            .into_iter()
            .map(|(key, bytes): (Key, u64)| Entry { key: key.to_string(), bytes })
            .collect();
        entries.sort();
        Ok(entries)
    }

    /// Names of the folders directly below the folder `prefix`, sorted.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let path = path(prefix)?;
        let list = || self.backend.list_with_delimiter(Some(&path));
        let listed = self.repeat(prefix, list).await?;
        let names = listed.common_prefixes.iter().filter_map(|folder| folder.filename());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Removes an object; removing what is not there is no error.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.delete_all(key, &[path(key)?]).await
    }

    /// Removes everything below the folder `prefix`, half-written objects of the file backend
    /// included. (Those of a bucket are invisible; its rules for unfinished uploads remove them.)
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let found = self.list(prefix).await?;
        let keys = found.iter().map(|entry| path(&entry.key)).collect::<Result<Vec<_>, _>>()?;
        self.delete_all(prefix, &keys).await?;
        if let Some(folder) = self.local_path(prefix) {
            match tokio::fs::remove_dir_all(&folder).await {
                Ok(()) => (),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                Err(error) => return Err(StoreError::from_io(prefix, error)),
            }
        }
        Ok(())
    }

    /// Removes objects; `key` stands for them in an error.
    async fn delete_all(&self, key: &str, keys: &[Key]) -> Result<(), StoreError> {
        for some in keys.chunks(DELETED_AT_ONCE) {
            let delete = || async {
                let keys: Vec<_> = some.iter().cloned().map(Ok).collect();
                let mut results = self.backend.delete_stream(futures::stream::iter(keys).boxed());
                while let Some(result) = results.next().await {
                    match result {
                        Ok(_) => (),
                        Err(error) if is_missing_object(&error) => (),
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            };
            self.repeat(key, delete).await?;
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

/// Where a listing that broke off goes on, if the backend lists in order; or it begins anew.
fn begin_or_go_on(found: &mut Vec<(Key, u64)>) -> Option<Key> {
    if !found.is_sorted() {
        found.clear();
    }
    found.last().map(|(key, _)| key.clone())
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
