//! Which exchange a rank entered last, for whoever asks why a gang does not go on.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clade_model::collective::{Collective, CollectiveError};
use clade_model::tch::Tensor;

/// The last exchange of one rank; another thread may look at it any time.
#[derive(Clone, Debug, Default)]
pub struct LastExchange(Arc<Mutex<Option<Exchange>>>);

#[derive(Clone, Copy, Debug)]
struct Exchange {
    what: &'static str,
    /// Exchanges entered, this one included: ranks of one gang that stand at the same number wait for each other.
    number: u64,
    values: usize,
    entered: Instant,
    took: Option<Duration>,
}

impl LastExchange {
    fn locked(&self) -> MutexGuard<'_, Option<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, what: &'static str, values: usize) {
        let mut last = self.locked();
        let number = last.map_or(0, |last| last.number) + 1;
        *last = Some(Exchange { what, number, values, entered: Instant::now(), took: None });
    }

    fn leave(&self) {
        if let Some(last) = &mut *self.locked() {
            last.took = Some(last.entered.elapsed());
        }
    }
}

impl fmt::Display for LastExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Exchange { what, number, values, entered, took }) = *self.locked() else {
            return f.write_str("no exchange with other ranks was entered yet");
        };
        let ago = entered.elapsed().as_secs_f64();
        write!(f, "exchange {number}, {what} of {values} values, was entered {ago:.1} s ago and ")?;
        match took {
            Some(took) => write!(f, "left after {:.3} s", took.as_secs_f64()),
            None => f.write_str("has not been left"),
        }
    }
}

/// A collective whose last exchange is known.
pub struct Watched<C> {
    inner: C,
    last: LastExchange,
}

impl<C: Collective> Watched<C> {
    pub const fn new(inner: C, last: LastExchange) -> Self {
        Self { inner, last }
    }

    fn pass<R>(
        &mut self,
        what: &'static str,
        values: usize,
        exchange: impl FnOnce(&mut C) -> Result<R, CollectiveError>,
    ) -> Result<R, CollectiveError> {
        self.last.enter(what, values);
        let result = exchange(&mut self.inner);
        // One that failed was never left: the gang ends here.
        if result.is_ok() {
            self.last.leave();
        }
        result
    }
}

impl<C: Collective> Collective for Watched<C> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.pass("a sum", values.len(), |inner| inner.all_reduce_sum(values))
    }

    fn all_gather(&mut self, own: &[f32], out: &mut Vec<f32>) -> Result<(), CollectiveError> {
        self.pass("a gather", own.len(), |inner| inner.all_gather(own, out))
    }

    fn broadcast(&mut self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.pass("a broadcast", values.len(), |inner| inner.broadcast(root, values))
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.pass("a barrier", 0, Collective::barrier)
    }

    fn is_on_device(&self) -> bool {
        self.inner.is_on_device()
    }

    fn take_waited(&mut self) -> Duration {
        self.inner.take_waited()
    }

    fn add_waited(&mut self, waited: Duration) {
        self.inner.add_waited(waited);
    }

    fn begin_sum(&mut self, tensor: &Tensor) -> Result<(), CollectiveError> {
        self.pass("the begin of a sum on GPUs", tensor.numel(), |inner| inner.begin_sum(tensor))
    }

    fn end_sums(&mut self) -> Result<(), CollectiveError> {
        self.pass("the end of sums on GPUs", 0, Collective::end_sums)
    }

    fn gather_tensors(&mut self, own: &Tensor) -> Result<Tensor, CollectiveError> {
        self.pass("a gather on GPUs", own.numel(), |inner| inner.gather_tensors(own))
    }
}

#[cfg(test)]
mod tests {
    use clade_model::collective::Solo;

    use super::*;

    /// Fails at the second exchange, as one whose peer is lost.
    struct Breaks(u32);

    impl Collective for Breaks {
        fn rank(&self) -> usize {
            0
        }

        fn world_size(&self) -> usize {
            2
        }

        fn all_reduce_sum(&mut self, _: &mut [f32]) -> Result<(), CollectiveError> {
            self.0 += 1;
            if self.0 > 1 { Err(CollectiveError::Aborted) } else { Ok(()) }
        }

        fn all_gather(&mut self, _: &[f32], _: &mut Vec<f32>) -> Result<(), CollectiveError> {
            Ok(())
        }

        fn broadcast(&mut self, _: usize, _: &mut [f32]) -> Result<(), CollectiveError> {
            Ok(())
        }

        fn barrier(&mut self) -> Result<(), CollectiveError> {
            Ok(())
        }
    }

    #[test]
    fn the_last_exchange_is_told_and_whether_it_was_left() {
        let last = LastExchange::default();
        assert_eq!(last.to_string(), "no exchange with other ranks was entered yet");
        let mut watched = Watched::new(Breaks(0), last.clone());
        watched.all_reduce_sum(&mut [0.0; 3]).unwrap();
        let told = last.to_string();
        assert!(told.starts_with("exchange 1, a sum of 3 values, was entered 0.0 s ago and left"));
        watched.all_reduce_sum(&mut [0.0; 4]).unwrap_err();
        let told = last.to_string();
        assert!(
            told.starts_with("exchange 2, a sum of 4 values") && told.ends_with("not been left")
        );
    }

    #[test]
    fn what_is_watched_exchanges_as_it_does_unwatched() {
        let mut watched = Watched::new(Solo, LastExchange::default());
        super::super::conformance::check(&mut watched, &[0, 3, 1_001]).unwrap();
    }
}
