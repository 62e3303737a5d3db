//! Batches in the order of data, a few steps ahead of the training thread.
//!
//! What a batch holds depends on (seed, model, manifest, cursor) alone; the rank only decides which
//! share of it is read. A pair whose picture does not decode, or is not the one indexed, keeps its slot,
//! marked invalid, and is counted; too many of them end the work with a list. Reading ahead is bounded:
//! at most [`AHEAD`] finished batches wait, and the shards of one block of the order beyond.
//!
//! Pixels are written once, into memory of the caller's kind: pinned, where they go to a GPU.

mod feed;
mod prefetch;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use clade_core::ids::ModelId;
use clade_core::job::Failure;
use clade_pictures::Detail;
use clade_store::{DataManifest, Store};
use tokio::runtime::Handle;

use crate::cache::Cache;
use feed::Feed;

/// Finished batches that may wait for the training thread.
const AHEAD: usize = 2;
/// How long whoever waits for a batch is left alone.
const WAKE: Duration = Duration::from_secs(1);

/// Turns a caption into one row of token ids.
pub type Tokens = Arc<dyn Fn(&str) -> Vec<i64> + Send + Sync>;

/// Makes memory of so many bytes for the pixels of a batch; what it holds at first is not looked at.
pub type Memory<M> = Arc<dyn Fn(usize) -> M + Send + Sync>;

/// What a model wants its pairs as.
pub struct Shape<M> {
    /// Side of the square pictures.
    pub image_size: usize,
    pub tokens: Tokens,
    pub memory: Memory<M>,
    /// Threads that read and decode.
    pub threads: usize,
    pub detail: Detail,
}

/// Which stream, and which part of each batch of it.
#[derive(Clone, Debug)]
pub struct Stream {
    pub seed: u64,
    pub model: ModelId,
    /// Pairs of a global batch.
    pub global_batch: u32,
    pub rank: u32,
    pub ranks: u32,
    /// Pictures of more pixels are masked.
    pub max_pixels: u64,
    /// Above this share of masked pairs the stream ends with the list.
    pub max_bad_share: f64,
}

/// Where the bytes come from.
#[derive(Clone)]
pub struct Place {
    pub store: Store,
    pub runtime: Handle,
    /// Keeps tars that are not on this machine's disk.
    pub cache: Option<Arc<Cache>>,
}

/// This rank's share of one global batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<M> {
    /// `[pairs, 3, size, size]` bytes, not normalised.
    pub pixels: M,
    /// `[pairs, context]`
    pub tokens: Vec<i64>,
    /// `[pairs]`; a pair that could not be read keeps its slot and is false here.
    pub valid: Vec<bool>,
    /// Keys of the whole global batch, in order: the same on every rank.
    pub keys: Vec<String>,
    /// Epoch of the batch's first pair.
    pub epoch: u64,
    /// Pairs of this share that are masked out, by cause.
    pub masked: BTreeMap<&'static str, u64>,
}

/// Reads one model's stream.
pub struct Loader<M> {
    feed: Arc<Feed<M>>,
    running: Option<Running<M>>,
}

struct Running<M> {
    next: u64,
    batches: Receiver<Result<Loaded<M>, Failure>>,
}

impl<M: AsMut<[u8]> + Send + 'static> Loader<M> {
    /// Prepares a stream over the pairs of `data`.
    pub fn new(
        place: Place,
        stream: Stream,
        data: &DataManifest,
        shape: Shape<M>,
    ) -> Result<Self, Failure> {
        if data.pairs == 0 {
            let message = format!("{} has no pairs to train on", stream.model);
            return Err(Failure::Data { message });
        }
        Ok(Self { feed: Arc::new(Feed::new(place, stream, data, shape)), running: None })
    }

    /// This rank's share of the global batch at `cursor`: pairs consumed before it since the first
    /// of this model's own stream.
    ///
    /// Batches are meant to be asked for in order; any other cursor starts reading anew there.
    pub fn batch(&mut self, cursor: u64) -> Result<Loaded<M>, Failure> {
        Ok(self.batch_while(cursor, || true)?.expect("waited for without end"))
    }

    /// The same, asking `go_on` each second while it waits; nothing if that says no.
    ///
    /// A tar that comes from afar may take minutes, and whoever waits has to say that it lives.
    pub fn batch_while(
        &mut self,
        cursor: u64,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<Loaded<M>>, Failure> {
        let running = match self.running.take().filter(|running| running.next == cursor) {
            Some(running) => running,
            // What was read ahead is dropped, and the thread that read it ends at its next batch.
            None => self.start(cursor)?,
        };
        let running = self.running.insert(running);
        loop {
            match running.batches.recv_timeout(WAKE) {
                Ok(loaded) => {
                    running.next += u64::from(self.feed.global_batch());
                    return loaded.map(Some);
                }
                Err(RecvTimeoutError::Timeout) if go_on() => (),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    let message =
                        format!("the loader broke off at pair {cursor}; its log tells why");
                    return Err(Failure::Crashed { rank: self.feed.rank(), message });
                }
            }
        }
    }

    fn start(&self, first: u64) -> Result<Running<M>, Failure> {
        let (sender, batches) = sync_channel(AHEAD);
        let feed = Arc::clone(&self.feed);
        let launch = |error: std::io::Error| Failure::Launch {
            rank: self.feed.rank(),
            message: format!("no thread for the loader: {error}"),
        };
        let mut order = feed.order();
        let mut prefetch = feed.prefetch().map_err(launch)?;
        std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || {
                for cursor in (first..).step_by(feed.global_batch() as usize) {
                    prefetch.reached(&order, cursor);
                    let loaded = feed.load(&mut order, cursor);
                    let failed = loaded.is_err();
                    // Nobody listens any more: the loader was dropped or asked for another batch.
                    if sender.send(loaded).is_err() || failed {
                        return;
                    }
                }
            })
            .map_err(launch)?;
        Ok(Running { next: first, batches })
    }
}

#[cfg(test)]
mod tests;
