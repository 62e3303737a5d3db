//! Tries a store out before a run depends on it.

use bytes::Bytes;

use crate::error::StoreError;
use crate::retry::random;
use crate::store::Store;

/// Creators that race for one object.
const RACERS: usize = 8;

impl Store {
    /// Proves that the store can be reached, read, written, listed and deleted from, and that of
    /// several creators of one object exactly one succeeds: everything in Clade rests on that.
    ///
    /// Leaves nothing behind unless it fails.
    pub async fn check(&self) -> Result<(), StoreError> {
        let probe = format!(".clade-probe-{}-{:016x}", std::process::id(), random());
        let key = format!("{probe}/once");
        // If this fails there is nothing to clear away.
        self.put_new(&key, "first").await?;
        let checked = self.try_out(&probe, &key).await;
        let cleared = self.delete_prefix(&probe).await;
        checked.and(cleared)
    }

    async fn try_out(&self, probe: &str, key: &str) -> Result<(), StoreError> {
        let unusable = |reason: String| StoreError::Unusable { uri: self.uri().to_owned(), reason };
        match self.put_new(key, "second").await {
            Err(StoreError::AlreadyExists { .. }) => (),
            Ok(_) => {
                return Err(unusable(
                    "it created an object that was there already (it ignores `If-None-Match: *`), \
                     so two tries of one job could both commit; use a store with create-if-absent"
                        .to_owned(),
                ));
            }
            Err(error) => return Err(error),
        }
        if self.get(key).await? != "first" {
            return Err(unusable("an object does not read back as it was written".to_owned()));
        }
        self.race(&format!("{probe}/race")).await?;
        let found = self.list(probe).await?.len();
        if found == 2 {
            Ok(())
        } else {
            Err(unusable(format!("a listing shows {found} of 2 objects that were just written")))
        }
    }

    async fn race(&self, key: &str) -> Result<(), StoreError> {
        let creators = (0..RACERS).map(|number| self.put_new(key, Bytes::from(number.to_string())));
        let mut winners = 0;
        for outcome in futures::future::join_all(creators).await {
            match outcome {
                Ok(_) => winners += 1,
                Err(StoreError::AlreadyExists { .. }) => (),
                Err(error) => return Err(error),
            }
        }
        if winners == 1 {
            return Ok(());
        }
        let reason = format!(
            "{winners} of {RACERS} creators of one object were told that they created it, so two \
             tries of one job could both commit; use a store whose create-if-absent holds under \
             concurrency"
        );
        Err(StoreError::Unusable { uri: self.uri().to_owned(), reason })
    }
}
