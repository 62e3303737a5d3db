//! Carries a rank's stderr to the store, where it stays readable when machine and rank are gone.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clade_store::Store;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Of a longer log only the end is kept.
const KEPT_BYTES: u64 = 1024 * 1024;
const LAST_UPLOAD_PATIENCE: Duration = Duration::from_secs(5);

/// Copies the log to the store whenever it has grown, and once more when `ended` says so.
pub(super) async fn follow(file: PathBuf, store: Store, key: String, ended: CancellationToken) {
    let mut copied = 0;
    loop {
        let last = tokio::select! {
            () = ended.cancelled() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let upload = upload(&file, &store, &key, copied);
        match tokio::time::timeout(LAST_UPLOAD_PATIENCE, upload).await {
            Ok(Ok(length)) => copied = length,
            Ok(Err(error)) => tracing::warn!(key, %error, "cannot copy a log to the store"),
            Err(_) => tracing::warn!(key, "copying a log to the store takes too long"),
        }
        if last {
            return;
        }
    }
}

/// Copies the log if it is longer than `copied`; returns its length.
async fn upload(file: &Path, store: &Store, key: &str, copied: u64) -> anyhow::Result<u64> {
    let (length, tail) = tail(file, copied)?;
    if let Some(tail) = tail {
        store.put(key, tail).await?;
    }
    Ok(length)
}

fn tail(file: &Path, copied: u64) -> io::Result<(u64, Option<Vec<u8>>)> {
    let mut file = File::open(file)?;
    let length = file.seek(SeekFrom::End(0))?;
    if length == copied {
        return Ok((length, None));
    }
    file.seek(SeekFrom::Start(length.saturating_sub(KEPT_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(KEPT_BYTES).read_to_end(&mut bytes)?;
    Ok((length, Some(bytes)))
}
