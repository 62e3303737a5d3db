//! Opens the backend that an address names: a folder, or a bucket on the network.
//!
//! Buckets take their settings from the environment, by the names `object_store` gives them
//! (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `GOOGLE_APPLICATION_CREDENTIALS`,
//! `AZURE_STORAGE_ACCOUNT_NAME`, …), and from [`StoreOptions`] before it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;

use crate::answer::Answer;
use crate::error::StoreError;
use crate::options::StoreOptions;

mod cloud;
mod metadata;

/// Which service keeps the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    File,
    S3,
    Gs,
    Az,
}

/// Where a store lies, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) uri: Arc<str>,
}

/// An opened backend.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Uploads in parts that can be tried again part by part; the file backend has none.
    pub(crate) multipart: Option<Arc<dyn MultipartStore>>,
    /// Folder of the file backend.
    pub(crate) root: Option<Arc<Path>>,
}

/// An address taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address<'a> {
    Folder(PathBuf),
    Bucket { kind: Kind, bucket: &'a str, prefix: Key },
}

impl Kind {
    pub(crate) const fn is_remote(self) -> bool {
        match self {
            Self::Memory | Self::File => false,
            Self::S3 | Self::Gs | Self::Az => true,
        }
    }

    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Gs),
            "az" => Some(Self::Az),
            _ => None,
        }
    }

    /// What to do when credentials were refused.
    pub(crate) fn how_to_be_let_in(self, answer: &Answer) -> String {
        if answer.code.as_deref() == Some("RequestTimeTooSkewed") {
            return "set this machine's clock".to_owned();
        }
        let denied = matches!(answer.code.as_deref(), Some("AccessDenied") | None)
            && answer.status == Some(403);
        match (self, denied) {
            (Self::S3, true) => "check that the credentials of this process (AWS_ACCESS_KEY_ID, \
                 AWS_SECRET_ACCESS_KEY) may do s3:GetObject, s3:PutObject, s3:DeleteObject and \
                 s3:ListBucket there"
                .to_owned(),
            (Self::S3, false) => "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if the \
                 credentials are temporary, AWS_SESSION_TOKEN in the environment of this process \
                 (files in ~/.aws are not read)"
                .to_owned(),
            (Self::Gs, _) => "check GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS in the \
                 environment of this process, and that the account may read, write, list and delete \
                 objects there"
                .to_owned(),
            (Self::Az, _) => "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or \
                 AZURE_STORAGE_SAS_KEY) in the environment of this process"
                .to_owned(),
            (Self::Memory | Self::File, _) => {
                "check who may read and write there".to_owned()
            }
        }
    }
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self { kind: Kind::Memory, uri: "memory:".into() }
    }
}

impl<'a> Address<'a> {
    pub(crate) fn parse(uri: &'a str) -> Result<Self, StoreError> {
        let unsupported = || StoreError::Unsupported { uri: uri.to_owned() };
        let (scheme, rest) = uri.split_once("://").ok_or_else(unsupported)?;
        if scheme == "file" {
            let root = PathBuf::from(rest);
            return root.is_absolute().then_some(Self::Folder(root)).ok_or_else(unsupported);
        }
        let kind = Kind::of_scheme(scheme).ok_or_else(unsupported)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(is_name) {
            return Err(unsupported());
        }
        let prefix = Key::parse(prefix).map_err(|error| StoreError::Unusable {
            uri: uri.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self::Bucket { kind, bucket, prefix })
    }
}

impl Backend {
    pub(crate) fn memory() -> Self {
        let store = Arc::new(InMemory::new());
        let multipart: Arc<dyn MultipartStore> = Arc::<InMemory>::clone(&store);
        Self { objects: store, multipart: Some(multipart), root: None }
    }

    /// Opens the folder `root`, which must be there.
    pub(crate) fn folder(place: &Place, root: &Path) -> Result<Self, StoreError> {
        std::fs::metadata(root).map_err(|error| StoreError::from_io(&*place.uri, error))?;
        let backend = LocalFileSystem::new_with_prefix(root)
            .map_err(|error| StoreError::new(place, &place.uri, error))?
            .with_fsync(true);
        Ok(Self { objects: Arc::new(backend), multipart: None, root: Some(root.into()) })
    }

    /// Opens a bucket. Nothing is sent yet.
    pub(crate) fn bucket(
        place: &Place,
        bucket: &str,
        prefix: Key,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        match place.kind {
            Kind::S3 => Ok(Self::below(cloud::s3(place, bucket, options)?, prefix)),
            Kind::Gs => Ok(Self::below(cloud::gs(place, bucket, options)?, prefix)),
            Kind::Az => Ok(Self::below(cloud::az(place, bucket, options)?, prefix)),
            Kind::Memory | Kind::File => {
                Err(StoreError::Unsupported { uri: place.uri.to_string() })
            }
        }
    }

    fn below(store: impl ObjectStore + MultipartStore, prefix: Key) -> Self {
        let store = Arc::new(PrefixStore::new(store, prefix));
        let objects = Arc::clone(&store);
        Self { objects, multipart: Some(store), root: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_folder_or_a_place_in_a_bucket() {
        let bucket = |kind, bucket, prefix: &str| Address::Bucket {
            kind,
            bucket,
            prefix: Key::parse(prefix).unwrap(),
        };
        for (uri, expected) in [
            ("file:///a/b", Address::Folder("/a/b".into())),
            ("s3://bucket", bucket(Kind::S3, "bucket", "")),
            ("s3://bucket/", bucket(Kind::S3, "bucket", "")),
            ("gs://my-bucket/a/b/", bucket(Kind::Gs, "my-bucket", "a/b")),
            ("az://container/a", bucket(Kind::Az, "container", "a")),
        ] {
            assert_eq!(Address::parse(uri).unwrap(), expected, "{uri}");
        }
    }

    #[test]
    fn an_address_of_another_kind_is_refused_with_a_way_out() {
        for uri in [
            "ftp://host/a",
            "file:relative",
            "/just/a/path",
            "file://relative",
            "s3:bucket/a",
            "s3:///a",
            "s3://user@bucket/a",
            "s3://buck et",
            "",
        ] {
            let error = Address::parse(uri).unwrap_err().to_string();
            assert!(error.contains(uri) && error.contains("file:///"), "{error}");
            assert!(error.contains("s3://bucket/prefix"), "{error}");
        }
        assert!(matches!(Address::parse("s3://b/a//c"), Err(StoreError::Unusable { .. })));
    }
}
