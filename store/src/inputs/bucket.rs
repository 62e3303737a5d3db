//! Tars in buckets.

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};

use super::{InputTar, InputsError, fixed_folder, has_wildcard, matcher};
use crate::buckets::{Buckets, split};
use crate::error::StoreError;
use crate::store::path;

/// Objects that are asked for at a time.
const AT_A_TIME: usize = 32;

/// The tars that `addresses` stand for: those with wildcards for what matches, the others for one
/// object each, which must be there.
pub(super) async fn find(
    buckets: &Buckets,
    addresses: &[String],
) -> Result<Vec<InputTar>, InputsError> {
    let mut tars = Vec::new();
    for some in addresses.chunks(AT_A_TIME) {
        for found in try_join_all(some.iter().map(|address| find_one(buckets, address))).await? {
            tars.extend(found);
        }
    }
    Ok(tars)
}

async fn find_one(buckets: &Buckets, address: &str) -> Result<Vec<InputTar>, InputsError> {
    let refused =
        |source| InputsError::Store { address: address.to_owned(), source: Box::new(source) };
    let (bucket, key) = split(address)
        .ok_or_else(|| refused(StoreError::Unsupported { uri: address.to_owned() }))?;
    let store = buckets.open(bucket).map_err(refused)?;
    if !has_wildcard(key) {
        let key_path = path(key).map_err(refused)?;
        if let Some(bytes) = store.size(key).await.map_err(refused)? {
            return Ok(vec![InputTar { uri: address.to_owned(), bytes }]);
        }
        let first = || async { store.backend.list(Some(&key_path)).take(1).try_collect().await };
        let below: Vec<_> = store.repeat(key, first).await.map_err(refused)?;
        let path = address.to_owned();
        return Err(if below.is_empty() {
            InputsError::Missing { path }
        } else {
            InputsError::IsFolder { path }
        });
    }
    let matcher = matcher(key)?;
    let folder = fixed_folder(key);
    let mut found = store.list(folder).await.map_err(refused)?;
    found.retain(|entry| matcher.is_match(&entry.key));
    if found.is_empty() {
        let (pattern, folder) = (address.to_owned(), format!("{bucket}/{folder}"));
        return Err(InputsError::NothingMatched { pattern, folder });
    }
    let tar = |entry: crate::Entry| InputTar {
        uri: format!("{bucket}/{}", entry.key),
        bytes: entry.bytes,
    };
    Ok(found.into_iter().map(tar).collect())
}
