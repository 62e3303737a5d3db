//! Batches in the order of data, a few steps ahead of the training thread.
//!
//! What a batch holds depends on (seed, model, manifest, cursor) alone; the rank only decides which
//! share of it is read. A pair whose picture does not decode keeps its slot, marked invalid, and
//! is counted. Ahead-of-time reading is bounded: at most [`AHEAD`] finished batches wait.

mod feed;
pub(crate) mod indexes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use clade_core::ids::ModelId;
use clade_core::job::Failure;
use clade_model::train::Batch;
use clade_store::DataManifest;

use crate::context::Context;
use feed::Feed;

/// Finished batches that may wait for the training thread.
const AHEAD: usize = 2;

/// Turns a caption into one row of token ids.
pub(crate) type Tokens = Arc<dyn Fn(&str) -> Vec<i64> + Send + Sync>;

/// What a model wants its pairs as.
#[derive(Clone)]
pub(crate) struct Shape {
    /// Side of the square pictures.
    pub(crate) image_size: usize,
    pub(crate) tokens: Tokens,
    /// Threads that decode; 1 leaves the rest of the machine to the ranks.
    pub(crate) threads: usize,
}

/// This rank's share of one global batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) batch: Batch,
    /// Keys of the whole global batch, in order: the same on every rank.
    pub(crate) keys: Vec<String>,
    /// Epoch of the batch's first pair.
    pub(crate) epoch: u64,
    /// Pairs of this share that could not be decoded, by cause.
    pub(crate) masked: BTreeMap<&'static str, u64>,
}

/// Reads one model's stream.
pub(crate) struct Loader {
    feed: Arc<Feed>,
    running: Option<Running>,
}

struct Running {
    next: u64,
    batches: Receiver<Result<Loaded, Failure>>,
    thread: JoinHandle<()>,
}

impl Loader {
    /// Prepares `model`'s stream over the pairs of `data`.
    pub(crate) fn new(
        context: &Context,
        model: ModelId,
        data: &DataManifest,
        shape: Shape,
    ) -> Result<Self, Failure> {
        if data.pairs == 0 {
            return Err(Failure::Data { message: format!("{model} has no pairs to train on") });
        }
        Ok(Self { feed: Arc::new(Feed::new(context, model, data, shape)), running: None })
    }

    /// This rank's share of the global batch at `cursor`: pairs consumed before it since the first
    /// of this model's own stream.
    ///
    /// Batches are meant to be asked for in order; any other cursor starts reading anew there.
    pub(crate) fn batch(&mut self, cursor: u64) -> Result<Loaded, Failure> {
        if self.running.as_ref().is_none_or(|running| running.next != cursor) {
            self.stop();
            self.running = Some(self.start(cursor)?);
        }
        let running = self.running.as_mut().expect("it was just started");
        running.next += u64::from(self.feed.global_batch());
        running.batches.recv().unwrap_or_else(|_| {
            let message = format!("the loader broke off at pair {cursor}; its log tells why");
            Err(Failure::Crashed { rank: self.feed.rank(), message })
        })
    }

    fn start(&self, first: u64) -> Result<Running, Failure> {
        let (sender, batches) = sync_channel(AHEAD);
        let feed = Arc::clone(&self.feed);
        let mut stream = feed.stream();
        let thread = std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || {
                for cursor in (first..).step_by(feed.global_batch() as usize) {
                    let loaded = feed.load(&mut stream, cursor);
                    let failed = loaded.is_err();
                    // Nobody listens any more: the loader was dropped or asked for another batch.
                    if sender.send(loaded).is_err() || failed {
                        return;
                    }
                }
            })
            .map_err(|error| Failure::Launch {
                rank: self.feed.rank(),
                message: format!("no thread for the loader: {error}"),
            })?;
        Ok(Running { next: first, batches, thread })
    }

    fn stop(&mut self) {
        if let Some(Running { batches, thread, .. }) = self.running.take() {
            drop(batches);
            // A panic has shown itself by the closed channel.
            let _ = thread.join();
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
