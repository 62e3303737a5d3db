//! Whole files in and out of the store, with their digests.
//!
//! An upload is visible once it is complete and durable, or not at all; a download that is not
//! what it should be leaves no file.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clade_core::ids::Digest;
use futures::TryStreamExt;
use object_store::{MultipartUpload, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::digest::Hashing;
use crate::error::StoreError;
use crate::store::{Store, path};

/// Bytes per part of an upload: S3 wants at least 5 MiB.
const CHUNK: usize = 8 << 20;

/// One file that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Last segment of its key; the manifest's folder (or the one it names) holds it.
    pub name: String,
    pub bytes: u64,
    pub sha256: Digest,
}

impl Store {
    /// Copies a file to `key`.
    pub async fn upload(&self, file: &Path, key: &str) -> Result<Part, StoreError> {
        let mut upload = self
            .backend
            .put_multipart(&path(key)?)
            .await
            .map_err(|error| StoreError::new(key, error))?;
        match send(upload.as_mut(), file, key).await {
            Ok((bytes, sha256)) => {
                let name = key.rsplit('/').next().unwrap_or(key).to_owned();
                Ok(Part { name, bytes, sha256 })
            }
            Err(error) => {
                // What is left is invisible; the first error is the one to tell.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Copies the object at `key` to `file` and proves its digest.
    pub async fn download(
        &self,
        key: &str,
        file: &Path,
        expected: &Digest,
    ) -> Result<(), StoreError> {
        let partial = partial(file);
        let received = receive(self, key, &partial).await.and_then(|found| {
            let key = key.to_owned();
            if found == *expected {
                Ok(())
            } else {
                Err(StoreError::Damaged { key, expected: *expected, found })
            }
        });
        if let Err(error) = received {
            let _ = tokio::fs::remove_file(&partial).await;
            return Err(error);
        }
        tokio::fs::rename(&partial, file)
            .await
            .map_err(|error| StoreError::from_io(file.display().to_string(), error))
    }
}

async fn send(
    upload: &mut dyn MultipartUpload,
    file: &Path,
    key: &str,
) -> Result<(u64, Digest), StoreError> {
    let unreadable = |error| StoreError::from_io(file.display().to_string(), error);
    let refused = |error| StoreError::new(key, error);
    let mut source = tokio::fs::File::open(file).await.map_err(unreadable)?;
    let mut hash = Hashing::new(std::io::sink());
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        (&mut source).take(CHUNK as u64).read_to_end(&mut chunk).await.map_err(unreadable)?;
        if chunk.is_empty() && hash.bytes() > 0 {
            break;
        }
        std::io::Write::write_all(&mut hash, &chunk).map_err(unreadable)?;
        let last = chunk.len() < CHUNK;
        upload.put_part(Bytes::from(chunk).into()).await.map_err(refused)?;
        if last {
            break;
        }
    }
    upload.complete().await.map_err(refused)?;
    let (_, bytes, digest) = hash.finish();
    Ok((bytes, digest))
}

async fn receive(store: &Store, key: &str, file: &Path) -> Result<Digest, StoreError> {
    let unwritable = |error| StoreError::from_io(file.display().to_string(), error);
    let refused = |error| StoreError::new(key, error);
    let mut stream = store.backend.get(&path(key)?).await.map_err(refused)?.into_stream();
    if let Some(folder) = file.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(unwritable)?;
    }
    let mut target = tokio::fs::File::create(file).await.map_err(unwritable)?;
    let mut hash = Hashing::new(std::io::sink());
    while let Some(chunk) = stream.try_next().await.map_err(refused)? {
        std::io::Write::write_all(&mut hash, &chunk).map_err(unwritable)?;
        target.write_all(&chunk).await.map_err(unwritable)?;
    }
    target.flush().await.map_err(unwritable)?;
    let (_, _, digest) = hash.finish();
    Ok(digest)
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
