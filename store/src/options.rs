//! How a store on the network is reached: patience, and settings laid over the environment's.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How often and how long a request is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first included.
    pub tries: u32,
    /// No try begins later than this after the first one.
    pub within: Duration,
    /// The first pause; each further one is up to twice as long.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// Where the jitter starts: given by tests, drawn otherwise.
    pub seed: Option<u64>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            tries: 8,
            within: Duration::from_secs(60),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
            seed: None,
        }
    }
}

/// Options of [`Store::open_with`](crate::Store::open_with). The file backend needs none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreOptions {
    pub retry: Retry,
    /// For a connection to stand.
    pub connect_timeout: Duration,
    /// For the next sign of life of a request under way. A part of an upload (8 MiB) has to be sent
    /// within it.
    pub stall_timeout: Duration,
    /// For a request and its whole answer.
    pub request_timeout: Duration,
    settings: BTreeMap<String, String>,
    /// Whether the environment counts.
    pub(crate) reads_environment: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(120),
            settings: BTreeMap::new(),
            reads_environment: true,
        }
    }
}

impl StoreOptions {
    /// Sets one of `object_store`'s settings (`aws_endpoint`, `aws_access_key_id`, …), which then
    /// goes before the environment variable of that name.
    #[must_use]
    pub fn with(mut self, setting: &str, value: &str) -> Self {
        self.settings.insert(setting.to_lowercase(), value.to_owned());
        self
    }

    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Leaves the environment out, so that a test depends on nothing but itself.
    #[cfg(test)]
    pub(crate) fn without_environment(mut self) -> Self {
        self.reads_environment = false;
        self
    }

    pub(crate) const fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }
}

/// Names the settings only: their values may be secret.
impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { retry, connect_timeout, stall_timeout, request_timeout, settings, .. } = self;
        f.debug_struct("StoreOptions")
            .field("retry", retry)
            .field("connect_timeout", connect_timeout)
            .field("stall_timeout", stall_timeout)
            .field("request_timeout", request_timeout)
            .field("settings", &settings.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let options = StoreOptions::default().with("AWS_SECRET_ACCESS_KEY", "hush");
        let printed = format!("{options:?}");
        assert!(
            printed.contains("aws_secret_access_key") && !printed.contains("hush"),
            "{printed}"
        );
    }
}
