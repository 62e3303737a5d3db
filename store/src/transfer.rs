//! Whole files in and out of the store, with their digests.
//!
//! An upload is visible once it is complete and durable, or not at all; a download that is not
//! what it should be leaves no file.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clade_core::ids::Digest;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::error::StoreError;
use crate::relay::Relay;
use crate::store::Store;
use crate::upload::PART;

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
        let unreadable = |error| StoreError::from_io(file.display().to_string(), error);
        let mut source = tokio::fs::File::open(file).await.map_err(unreadable)?;
        source.set_max_buf_size(PART);
        let mut upload = self.begin_upload(key).await?;
        loop {
            let mut chunk = Vec::with_capacity(PART);
            let read = (&mut source).take(PART as u64).read_to_end(&mut chunk).await;
            let last = chunk.len() < PART;
            let written = match read {
                Ok(_) => upload.write_bytes(Bytes::from(chunk)).await,
                Err(error) => Err(unreadable(error)),
            };
            if let Err(error) = written {
                // What is left is invisible; the first error is the one to tell.
                let _ = upload.abort().await;
                return Err(error);
            }
            if last {
                return upload.finish().await;
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

async fn receive(store: &Store, key: &str, file: &Path) -> Result<Digest, StoreError> {
    let unwritable = |error| StoreError::from_io(file.display().to_string(), error);
    let mut reader = store.reader(key, ..).await?;
    if let Some(folder) = file.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(unwritable)?;
    }
    let target = tokio::fs::File::create(file).await.map_err(unwritable)?.into_std().await;
    let mut relay = Relay::new(target);
    while let Some(chunk) = reader.next().await? {
        relay.pass(vec![chunk]).await.map_err(unwritable)?;
    }
    let (_, _, digest) = relay.finish().await.map_err(unwritable)?;
    Ok(digest)
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
