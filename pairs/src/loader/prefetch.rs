//! Makes the shards of the next block of the order ready while this one is read.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use clade_core::order::{Order, ShardAt};

use super::feed::Feed;

/// The thread that reads ahead; it ends once this is dropped and its last tar is there.
pub(super) struct Prefetch {
    wanted: Sender<Vec<ShardAt>>,
    /// The stream position at which the block being read ends: what comes after it was asked for.
    end: Option<u64>,
}

impl Prefetch {
    pub(super) fn start<M: AsMut<[u8]> + Send + 'static>(feed: Arc<Feed<M>>) -> io::Result<Self> {
        let (wanted, shards) = channel::<Vec<ShardAt>>();
        std::thread::Builder::new().name("prefetch".to_owned()).spawn(move || {
            for shard in shards.into_iter().flatten() {
                // Whoever needs it meets the same fault, and reports it.
                if let Err(failure) = feed.prepare(shard) {
                    tracing::debug!(?shard, %failure, "a shard is not ready ahead of time");
                }
                if feed.is_left() {
                    return;
                }
            }
        })?;
        Ok(Self { wanted, end: None })
    }

    /// Tells that reading has come to stream position `cursor`. With each new block the one after it is
    /// asked for, at first the one being read too.
    pub(super) fn reached(&mut self, order: &Order, cursor: u64) {
        if self.end.is_some_and(|end| cursor < end) {
            return;
        }
        let (end, mut shards) = order.block_of(cursor);
        if self.end.is_some() {
            shards.clear();
        }
        shards.extend(order.block_of(end).1);
        self.end = Some(end);
        // The thread is there as long as this is.
        let _ = self.wanted.send(shards);
    }
}
