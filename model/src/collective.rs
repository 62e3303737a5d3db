//! What the ranks of one gang say to each other while they train.
//!
//! Plain slices of f32, in a lock step: every rank makes the same calls in the same order with the
//! same lengths. A call that fails leaves the gang unusable; the rank exits and the gang restarts.

use std::error::Error;
use std::time::Duration;

use tch::Tensor;

/// Exchanges numbers among the ranks of one gang.
pub trait Collective: Send {
    /// This rank's position, below [`Self::world_size`].
    fn rank(&self) -> usize;

    fn world_size(&self) -> usize;

    /// Replaces `values` by the sum over all ranks.
    ///
    /// Every rank must end with the same bits: each element is summed in one place and copied.
    /// Whether an update is applied is decided from such sums, by each rank for itself.
    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// Fills `out` with every rank's `own`, ordered by rank; all are of the same length.
    fn all_gather(&mut self, own: &[f32], out: &mut Vec<f32>) -> Result<(), CollectiveError>;

    /// Replaces `values` on every rank by those of rank `root`.
    fn broadcast(&mut self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// Returns once every rank has called it.
    fn barrier(&mut self) -> Result<(), CollectiveError>;

    /// Time in which this rank could do nothing but wait for others, since it was last taken.
    fn take_waited(&mut self) -> Duration {
        Duration::ZERO
    }

    /// Gives some of it back, for whoever takes it next.
    fn add_waited(&mut self, _waited: Duration) {}

    /// Whether tensors on a GPU are exchanged where they lie; the same on all ranks.
    fn is_on_device(&self) -> bool {
        false
    }

    /// Begins to replace an f32 tensor on a GPU by the sum over all ranks, once what computes it has run.
    /// Only where [`Self::is_on_device`].
    fn begin_sum(&mut self, _tensor: &Tensor) -> Result<(), CollectiveError> {
        Err(CollectiveError::Aborted)
    }

    /// Returns once all sums that were begun are made.
    fn end_sums(&mut self) -> Result<(), CollectiveError> {
        Err(CollectiveError::Aborted)
    }

    /// Replaces an f32 tensor on a GPU by the sum over all ranks. Only where [`Self::is_on_device`].
    fn sum_tensor(&mut self, tensor: &Tensor) -> Result<(), CollectiveError> {
        self.begin_sum(tensor)?;
        self.end_sums()
    }

    /// Every rank's `own`, by rank. Only where [`Self::is_on_device`].
    ///
    /// # Shapes
    ///
    /// - `own`: `[values]` f32 on a GPU
    /// - returns `[ranks, values]` f32
    fn gather_tensors(&mut self, _own: &Tensor) -> Result<Tensor, CollectiveError> {
        Err(CollectiveError::Aborted)
    }
}

/// Why an exchange failed, and with whom.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    #[error("rank {peer} was lost")]
    PeerLost {
        peer: usize,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    #[error("rank {peer} did not answer within {waited:?}")]
    Timeout { peer: usize, waited: Duration },
    #[error("rank {peer} sent {found} values where {expected} were due: the ranks are out of step")]
    Mismatch { peer: usize, expected: usize, found: usize },
    #[error("what rank {peer} sent arrived damaged, or it speaks out of turn")]
    Damaged { peer: usize },
    #[error("the exchange among GPUs failed: {why}")]
    Device { why: String },
    #[error("the exchange was aborted")]
    Aborted,
}

/// A gang of one: nothing to exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce_sum(&mut self, _values: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn all_gather(&mut self, own: &[f32], out: &mut Vec<f32>) -> Result<(), CollectiveError> {
        out.clear();
        out.extend_from_slice(own);
        Ok(())
    }

    fn broadcast(&mut self, _root: usize, _values: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }
}
