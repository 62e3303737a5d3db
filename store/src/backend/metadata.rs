//! Credentials of the machine itself, asked for when none are configured.
//!
//! Off the clouds nothing answers at the metadata address, and then a clear word is due soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::{CredentialProvider, Error, Result};

/// The metadata service is on the same machine or not at all.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: u32 = 4;

/// Asks `inner`, but gives up soon unless it has answered before.
#[derive(Debug)]
pub(crate) struct MachineCredentials<C> {
    inner: Arc<dyn CredentialProvider<Credential = C>>,
    has_answered: AtomicBool,
    /// Variables that would have spared the question.
    instead: &'static str,
}

impl<C> MachineCredentials<C> {
    pub(crate) fn new(
        inner: Arc<dyn CredentialProvider<Credential = C>>,
        instead: &'static str,
    ) -> Self {
        Self { inner, has_answered: AtomicBool::new(false), instead }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "no credentials: {instead} are not set, and this machine's metadata service gives none ({why})"
)]
struct NoCredentials {
    instead: &'static str,
    why: String,
}

#[async_trait]
impl<C: Send + Sync + std::fmt::Debug + 'static> CredentialProvider for MachineCredentials<C> {
    type Credential = C;

    async fn get_credential(&self) -> Result<Arc<C>> {
        if self.has_answered.load(Ordering::Relaxed) {
            return self.inner.get_credential().await;
        }
        let mut why = String::new();
        for _ in 0..TRIES {
            match tokio::time::timeout(PATIENCE, self.inner.get_credential()).await {
                Ok(Ok(credential)) => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    return Ok(credential);
                }
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = format!("no answer within {PATIENCE:?}"),
            }
        }
        let source = Box::new(NoCredentials { instead: self.instead, why });
        Err(Error::Unauthenticated { path: String::new(), source })
    }
}
