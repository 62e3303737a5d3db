//! The one place where a request is tried again.
//!
//! `object_store`'s own retries are switched off: they leave out broken answers to anything but a
//! read, and they hide whether an earlier try may have been carried out, which a creator has to
//! know.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use crate::answer::{Verdict, judge};
use crate::options::Retry;

/// Tries requests again as its options say; shared by all that is done with one store.
#[derive(Debug)]
pub(crate) struct Retrier {
    options: Retry,
    jitter: AtomicU64,
}

/// How a request ended.
pub(crate) struct Tried<T> {
    pub(crate) result: object_store::Result<T>,
    /// Whether a try before the last one may have been carried out although it failed.
    pub(crate) in_doubt: bool,
}

impl Retrier {
    pub(crate) fn new(options: Retry) -> Self {
        let seed = options.seed.unwrap_or_else(random);
        Self { options, jitter: AtomicU64::new(seed) }
    }

    /// For a backend on this machine, which has no faults that pass.
    pub(crate) fn never() -> Self {
        Self::new(Retry { tries: 1, ..Retry::default() })
    }

    /// Calls `attempt` until it succeeds, fails for good, or patience is at its end.
    pub(crate) async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Tried<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let begun = Instant::now();
        let mut in_doubt = false;
        for try_number in 1.. {
            let error = match attempt().await {
                Ok(value) => return Tried { result: Ok(value), in_doubt },
                Err(error) => error,
            };
            let Verdict::Again { reached } = judge(&error) else {
                return Tried { result: Err(error), in_doubt };
            };
            let pause = self.pause(try_number);
            if try_number >= self.options.tries || begun.elapsed() + pause > self.options.within {
                return Tried { result: Err(error), in_doubt };
            }
            in_doubt |= reached;
            info!(try_number, ?pause, %error, "the store failed; trying again");
            tokio::time::sleep(pause).await;
        }
        unreachable!("the loop has no end but its returns")
    }

    /// A pause between half of and the whole of what the number of the try allows.
    fn pause(&self, try_number: u32) -> Duration {
        let Retry { first_pause, longest_pause, .. } = &self.options;
        let doubled = first_pause.saturating_mul(1 << (try_number - 1).min(16));
        let longest = doubled.min(*longest_pause);
        longest.mul_f64(0.5 + 0.5 * self.fraction())
    }

    /// The next number of a sequence in `0..1` (SplitMix64).
    fn fraction(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.jitter.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }
}

/// A number that no other process draws.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use object_store::Error;
    use object_store::client::{HttpError, HttpErrorKind};

    use super::*;

    fn fault(kind: HttpErrorKind) -> Error {
        let source = Box::new(HttpError::new(kind, std::fmt::Error));
        Error::Generic { store: "test", source }
    }

    fn retrier(tries: u32, pause: u64, within: u64) -> Retrier {
        let (within, pause) = (Duration::from_millis(within), Duration::from_millis(pause));
        let pauses = Retry { first_pause: pause, longest_pause: pause, ..Retry::default() };
        Retrier::new(Retry { tries, within, seed: Some(7), ..pauses })
    }

    #[tokio::test]
    async fn tries_are_counted_and_end_in_the_last_error() {
        let mut tries = 0;
        let attempt = || {
            tries += 1;
            ready(Err::<(), _>(fault(HttpErrorKind::Timeout)))
        };
        let tried = retrier(8, 1, 60_000).run(attempt).await;
        assert!(tried.result.is_err() && tried.in_doubt);
        assert_eq!(tries, 8);
    }

    #[tokio::test]
    async fn no_try_begins_after_the_time_is_up() {
        let mut tries = 0;
        let attempt = || {
            tries += 1;
            ready(Err::<(), _>(fault(HttpErrorKind::Timeout)))
        };
        // Each pause takes 10 ms or more, and the last must end within 50 ms.
        assert!(retrier(100, 20, 50).run(attempt).await.result.is_err());
        assert!((1..=6).contains(&tries), "{tries} tries");
    }

    #[test]
    fn pauses_grow_differ_and_stay_below_the_longest() {
        let retrier = Retrier::new(Retry { seed: Some(7), ..Retry::default() });
        let pauses: Vec<_> = (1..12).map(|number| retrier.pause(number)).collect();
        assert!(pauses.windows(2).take(5).all(|pair| pair[0] < pair[1] * 2), "{pauses:?}");
        assert!(pauses[0] >= Duration::from_millis(100) && pauses[0] <= Duration::from_millis(200));
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(10)), "{pauses:?}");
        assert_ne!(pauses[9], pauses[10]);
    }

    #[tokio::test]
    async fn doubt_remains_only_where_a_failed_try_may_have_reached_the_server() {
        for (kind, doubt) in [(HttpErrorKind::Connect, false), (HttpErrorKind::Interrupted, true)] {
            let mut first = true;
            let attempt =
                || ready(if std::mem::take(&mut first) { Err(fault(kind)) } else { Ok(()) });
            let tried = retrier(8, 1, 60_000).run(attempt).await;
            assert!(tried.result.is_ok());
            assert_eq!(tried.in_doubt, doubt, "{kind:?}");
        }
    }
}
