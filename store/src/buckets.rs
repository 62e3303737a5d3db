//! The buckets that objects are read from by their full address, each opened once.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::store::Store;

/// Opens buckets when they are first named. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Buckets {
    options: StoreOptions,
    opened: Arc<Mutex<BTreeMap<String, Store>>>,
}

impl Buckets {
    pub fn new(options: StoreOptions) -> Self {
        Self { options, opened: Arc::default() }
    }

    /// The store and the key of the object at `uri`: `s3://bucket/key`, `gs://…`, `az://…`,
    /// `file:///…` or an absolute path. Whether the object is there is not looked at.
    pub fn open_object(&self, uri: &str) -> Result<(Store, String), StoreError> {
        let unsupported = || StoreError::Unsupported { uri: uri.to_owned() };
        let (bucket, key) = match split(uri) {
            Some((bucket, key)) => (bucket.to_owned(), key),
            // The folder takes the place of the bucket.
            None => {
                let path = uri.strip_prefix("file://").unwrap_or(uri);
                let (folder, key) = path.rsplit_once('/').ok_or_else(unsupported)?;
                (format!("file://{}", if folder.is_empty() { "/" } else { folder }), key)
            }
        };
        if key.is_empty() {
            return Err(unsupported());
        }
        Ok((self.open(&bucket)?, key.to_owned()))
    }

    /// The store at `address`, which holds a whole bucket or folder.
    pub(crate) fn open(&self, address: &str) -> Result<Store, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = opened.get(address) {
            return Ok(store.clone());
        }
        let store = Store::open_existing(address, &self.options)?;
        opened.insert(address.to_owned(), store.clone());
        Ok(store)
    }
}

impl Store {
    /// The store and the key of the object at `uri`, by the settings of the environment.
    ///
    /// Buckets stay open for as long as the process runs; see [`Buckets::open_object`].
    pub fn open_object(uri: &str) -> Result<(Self, String), StoreError> {
        static OPENED: LazyLock<Buckets> = LazyLock::new(Buckets::default);
        OPENED.open_object(uri)
    }
}

/// `s3://bucket` and the key within it; nothing for addresses of files.
pub(crate) fn split(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once("://")?;
    if scheme == "file" {
        return None;
    }
    let (bucket, key) = rest.split_once('/')?;
    Some((&uri[..scheme.len() + 3 + bucket.len()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_key() {
        assert_eq!(split("s3://b/a/c.tar"), Some(("s3://b", "a/c.tar")));
        assert_eq!(split("s3://b"), None);
        assert_eq!(split("file:///a/b"), None);
    }

    #[tokio::test]
    async fn a_file_is_opened_by_its_folder_which_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a b.tar"), "bytes").unwrap();
        let buckets = Buckets::default();
        for scheme in ["", "file://"] {
            let uri = format!("{scheme}{}/a b.tar", folder.path().display());
            let (store, key) = buckets.open_object(&uri).unwrap();
            assert_eq!(store.get(&key).await.unwrap(), "bytes");
        }
        assert_eq!(buckets.opened.lock().unwrap().len(), 1, "a folder is opened once");
        let missing = folder.path().join("none/a.tar");
        let refused = buckets.open_object(missing.to_str().unwrap());
        assert!(matches!(refused, Err(StoreError::NotFound { .. })), "{refused:?}");
        assert!(!folder.path().join("none").exists());
        for uri in ["a.tar", "s3://bucket", "s3://bucket/", "ftp://host/a"] {
            let refused = Store::open_object(uri);
            assert!(matches!(refused, Err(StoreError::Unsupported { .. })), "{uri}: {refused:?}");
        }
    }
}
