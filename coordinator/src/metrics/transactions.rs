//! How long the state's transactions take and how large they are, whatever the store.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    /// Its guard did not hold: somebody else leads.
    Refused,
    /// No answer came: it may or may not have been applied.
    Unknown,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

type ByOutcome = Family<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct Transactions {
    durations: ByOutcome,
    keys: Histogram,
}

impl Transactions {
    pub(super) fn register(registry: &mut Registry) -> Self {
        // 0.25 ms to 8 s: a redb commit, an etcd commit, an etcd that elects.
        let durations = ByOutcome::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.25e-3, 2.0, 16))
        });
        // Up to the 100 keys that no transition may exceed.
        let keys = Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        registry.register_with_unit(
            "transaction_duration",
            "Time of a transaction of the state, by outcome",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register("transaction_keys", "Keys one transaction wrote", keys.clone());
        Self { durations, keys }
    }

    pub(super) fn observe(&self, outcome: Outcome, keys: usize, took: Duration) {
        let by_outcome = self.durations.get_or_create(&[("outcome", outcome.label())]);
        by_outcome.observe(took.as_secs_f64());
        let keys = u32::try_from(keys).unwrap_or(u32::MAX);
        self.keys.observe(f64::from(keys));
    }
}
