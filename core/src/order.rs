//! The order of data: which pairs make up which step, for any number of ranks.
//!
//! A pure function of (seed, model, epoch, digest of the data, numbers of pairs) and of nothing
//! else, so a model resumed anywhere, at any width, reads on exactly where it stood; the cursor is
//! one integer, the number of pairs consumed so far. Changing anything here is a format change:
//! `order/golden.txt` says so.
//!
//! One epoch's *list* is every pair of the model's own and one slice, or *pass*, of the shared pool
//! of foreign pairs, each exactly once. Batches cut one continuous stream of such lists: nothing is
//! padded, nothing dropped. A pair that cannot be used keeps its slot and is masked.
//!
//! The stream is laid out one block of shards at a time, so the memory it takes grows with the
//! number of shards and never with the number of pairs.

mod batch;
mod choices;
mod epoch;
mod pool;
mod random;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::{Digest, ModelId};
use epoch::{Block, Epoch};

pub use batch::{GlobalBatch, Slot, cursor, share};
pub use choices::{Choices, deciding_caption, sample_draw};
pub use pool::{foreign_pass, planned_passes};
pub use random::Random;

/// Where one pair lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PairAt {
    /// Row `index` of the index of the model's own shard `shard`, as its manifest counts them.
    Own { shard: u32, index: u32 },
    /// Row `index` of the pool's shard `shard`, counting only the rows of that pass that are not
    /// the model's own, in the order of the shard's index.
    Foreign { shard: u32, pass: u32, index: u32 },
}

/// A shard that pairs lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShardAt {
    Own(u32),
    Foreign(u32),
}

impl PairAt {
    pub const fn shard(self) -> ShardAt {
        match self {
            Self::Own { shard, .. } => ShardAt::Own(shard),
            Self::Foreign { shard, .. } => ShardAt::Foreign(shard),
        }
    }
}

/// One pair of a step, with the epoch it is drawn in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub epoch: u64,
    pub at: PairAt,
}

/// How many pairs a model draws from each shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Pairs of each shard of the model's own, in the manifest's order.
    pub own: Vec<u32>,
    /// Pairs of each shard of the pool by pass, without the model's own; empty without a pool.
    ///
    /// The pool has as many passes as the longest of these; a shorter one holds nothing beyond.
    pub foreign: Vec<Vec<u32>>,
}

impl Sources {
    fn own_pairs(&self) -> u64 {
        self.own.iter().copied().map(u64::from).sum()
    }

    fn passes(&self) -> usize {
        self.foreign.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Pairs of each shard of the pool that `pass` holds.
    fn slice(&self, pass: usize) -> impl Iterator<Item = u32> {
        self.foreign.iter().map(move |passes| passes.get(pass).copied().unwrap_or(0))
    }
}

/// The endless stream of one model's pairs.
#[derive(Clone, Debug)]
pub struct Order {
    key: u64,
    sources: Sources,
    /// Where each epoch of a period begins in it, then the period's length, in pairs.
    ///
    /// A period is as many epochs as the pool has passes, and one without a pool.
    starts: Vec<u64>,
    /// Laid out last, and kept since a stream is read forwards.
    epoch: Option<Epoch>,
    block: Option<Block>,
}

impl Order {
    /// Prepares the stream of `model` over shards of the given numbers of pairs.
    ///
    /// `data` is the digest of what the shards hold, not of where they lie. A model without pairs
    /// of its own has an empty stream whatever the pool holds, since foreign pairs are dealt out
    /// among own ones.
    pub fn new(seed: u64, model: ModelId, data: &Digest, sources: Sources) -> Self {
        let mut name = model.to_string().into_bytes();
        name.extend_from_slice(&data.0);
        let key = xxh3_64_with_seed(&name, seed);
        let own = sources.own_pairs();
        let mut starts = vec![0];
        let mut period = 0;
        for pass in 0..sources.passes().max(1) {
            if own > 0 {
                period += own + sources.slice(pass).map(u64::from).sum::<u64>();
            }
            starts.push(period);
        }
        Self { key, sources, starts, epoch: None, block: None }
    }

    /// Pairs of epoch `epoch`: the model's own and the epoch's slice of the pool.
    pub fn pairs_of_epoch(&self, epoch: u64) -> u64 {
        let pass = self.pass(epoch);
        self.starts[pass + 1] - self.starts[pass]
    }

    /// The first epoch that draws foreign pairs a second time; none if there are none to draw.
    pub fn wraps_at(&self) -> Option<u64> {
        let own_only = self.passes() * self.sources.own_pairs();
        (self.period() > own_only).then(|| self.passes())
    }

    /// The pairs at stream positions `from .. from + count`.
    ///
    /// Returns nothing if the model has no pairs of its own.
    pub fn draws(&mut self, from: u64, count: u64) -> Vec<Draw> {
        let mut draws = Vec::new();
        if self.period() == 0 {
            return draws;
        }
        let (mut position, until) = (from, from + count);
        while position < until {
            let (epoch, offset) = self.place(position);
            let block = self.block_at(epoch, offset);
            let rest = (until - position).min(block.end() - offset);
            draws.extend(block.pairs(offset..offset + rest).iter().map(|&at| Draw { epoch, at }));
            position += rest;
        }
        draws
    }

    /// The global batch of `size` pairs at stream position `from`, which is its step's [`cursor`].
    pub fn batch(&mut self, from: u64, size: u32) -> GlobalBatch {
        GlobalBatch::new(self.draws(from, u64::from(size)))
    }

    /// The stream position at which the block that holds `position` ends, and the shards it reads:
    /// what a reader may fetch before it gets there. Nothing is laid out.
    pub fn block_of(&self, position: u64) -> (u64, Vec<ShardAt>) {
        if self.period() == 0 {
            return (position, Vec::new());
        }
        let (epoch, offset) = self.place(position);
        let (end, shards) = self.lay_out(epoch).shards_at(offset);
        (self.start_of(epoch) + end, shards)
    }

    /// Every stream position before `until` at which the pair `at` is drawn, in rising order.
    ///
    /// Lays out one block of each epoch that draws the pair. Returns nothing for a pair that the
    /// sources do not hold.
    pub fn positions_of(&self, at: PairAt, until: u64) -> Vec<u64> {
        if self.period() == 0 {
            return Vec::new();
        }
        let (first, every) = match at {
            PairAt::Own { .. } => (0, 1),
            PairAt::Foreign { pass, .. } => (u64::from(pass), self.starts.len() - 1),
        };
        (first..)
            .step_by(every)
            .map(|epoch| (epoch, self.start_of(epoch)))
            .take_while(|&(_, start)| start < until)
            .map_while(|(epoch, start)| Some(start + self.lay_out(epoch).offset_of(at)?))
            .filter(|&position| position < until)
            .collect()
    }

    /// Pairs of one period.
    fn period(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Epochs of one period; at least 1.
    fn passes(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    fn pass(&self, epoch: u64) -> usize {
        usize::try_from(epoch % self.passes()).expect("below a slice's length")
    }

    /// The stream position at which `epoch` begins; the last one there is if it lies beyond.
    fn start_of(&self, epoch: u64) -> u64 {
        let periods = (epoch / self.passes()).saturating_mul(self.period());
        periods.saturating_add(self.starts[self.pass(epoch)])
    }

    /// The epoch of a stream position and the offset within the epoch's list.
    fn place(&self, position: u64) -> (u64, u64) {
        let (periods, within) = (position / self.period(), position % self.period());
        let pass = self.starts.partition_point(|&start| start <= within) - 1;
        (periods * self.passes() + pass as u64, within - self.starts[pass])
    }

    fn lay_out(&self, epoch: u64) -> Epoch {
        let pass = self.pass(epoch);
        let foreign = self.sources.slice(pass);
        let pass = u32::try_from(pass).expect("passes are few");
        Epoch::new(self.key, epoch, pass, self.sources.own.iter().copied(), foreign)
    }

    /// The block that holds the pair at `offset` of `epoch`, laid out if it is not the last one.
    fn block_at(&mut self, epoch: u64, offset: u64) -> &Block {
        let block = match self.block.take() {
            Some(block) if block.holds(epoch, offset) => block,
            _ => {
                let layout = match self.epoch.take() {
                    Some(layout) if layout.number() == epoch => layout,
                    _ => self.lay_out(epoch),
                };
                self.epoch.insert(layout).block_at(offset)
            }
        };
        self.block.insert(block)
    }
}

#[cfg(test)]
mod tests;
