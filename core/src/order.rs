//! The order of data: which pairs make up which step, for any number of ranks.
//!
//! A pure function of (seed, model, epoch, digest of the data) and of nothing else, so a model
//! resumed anywhere, at any width, reads on exactly where it stood; the cursor is one integer,
//! the number of pairs consumed so far. Changing anything here is a format change: the golden
//! file in the tests says so.
//!
//! Batches cut one continuous stream across epochs: nothing is padded, nothing dropped.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::ids::{Digest, ModelId, Step};

/// Shards permuted together: pairs mix over this many tars at a time.
const BLOCK_SHARDS: usize = 8;

/// Where one pair lies: a shard of the manifest and a position in its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairAt {
    pub shard: u32,
    pub index: u32,
}

/// One pair of a step, with the epoch it is drawn in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub epoch: u64,
    pub at: PairAt,
}

/// The endless stream of one model's pairs.
#[derive(Clone, Debug)]
pub struct Order {
    key: u64,
    /// Pairs of each shard, in the manifest's order.
    shards: Vec<u32>,
    pairs: u64,
    /// The epoch laid out last, since a stream is read forwards.
    epoch: Option<(u64, Vec<PairAt>)>,
}

impl Order {
    /// Prepares the stream of `model` over shards of the given numbers of pairs.
    ///
    /// `data` is the digest of what the shards hold, not of where they lie.
    pub fn new(seed: u64, model: ModelId, data: &Digest, shards: Vec<u32>) -> Self {
        let mut name = model.to_string().into_bytes();
        name.extend_from_slice(&data.0);
        let key = xxh3_64_with_seed(&name, seed);
        let pairs = shards.iter().copied().map(u64::from).sum();
        Self { key, shards, pairs, epoch: None }
    }

    /// Pairs of one epoch.
    pub const fn pairs(&self) -> u64 {
        self.pairs
    }

    /// The pairs at stream positions `from .. from + count`.
    ///
    /// Returns nothing if there are no pairs at all.
    pub fn draws(&mut self, from: u64, count: u64) -> Vec<Draw> {
        if self.pairs == 0 {
            return Vec::new();
        }
        (from..from + count)
            .map(|position| {
                let (epoch, offset) = (position / self.pairs, position % self.pairs);
                if self.epoch.as_ref().is_none_or(|(laid_out, _)| *laid_out != epoch) {
                    self.epoch = Some((epoch, self.lay_out(epoch)));
                }
                let list = self.epoch.as_ref().map_or(&[][..], |(_, list)| list);
                let offset = usize::try_from(offset).expect("an epoch's list fits in memory");
                Draw { epoch, at: list[offset] }
            })
            .collect()
    }

    /// Permutes the shards, then the pairs within blocks of shards.
    fn lay_out(&self, epoch: u64) -> Vec<PairAt> {
        let mut random = Random::new(xxh3_64_with_seed(&epoch.to_le_bytes(), self.key));
        let mut order: Vec<(u32, u32)> = (0..).zip(self.shards.iter().copied()).collect();
        random.shuffle(&mut order);
        let mut list = Vec::new();
        for block in order.chunks(BLOCK_SHARDS) {
            let start = list.len();
            for &(shard, pairs) in block {
                list.extend((0..pairs).map(|index| PairAt { shard, index }));
            }
            random.shuffle(&mut list[start..]);
        }
        list
    }
}

/// Pairs consumed before `step` (the first step is 0) with `batch` pairs per step.
pub const fn cursor(step: Step, batch: u32) -> u64 {
    step.0 * batch as u64
}

/// The positions within a global batch that rank `rank` of `ranks` takes.
///
/// The batch is K micro-batches; each rank takes K / ranks neighbouring ones, so every rank has
/// the same number of pairs and the ranks' batches laid end to end are the global batch.
pub const fn share(batch: u32, rank: u32, ranks: u32) -> std::ops::Range<u32> {
    let own = batch / ranks;
    rank * own..(rank + 1) * own
}

/// The choices made for one pair in one epoch, whoever makes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choices {
    caption: u64,
    /// Four uniform numbers in [0, 1): scale, aspect ratio, x and y of the crop.
    pub crop: [f64; 4],
    /// Whether to mirror the picture, where a recipe wants it.
    pub flip: bool,
}

impl Choices {
    pub fn new(seed: u64, epoch: u64, key: &str) -> Self {
        let mut random = Random::new(
            xxh3_64_with_seed(key.as_bytes(), seed) ^ xxh3_64(&epoch.to_le_bytes()).rotate_left(17),
        );
        let caption = random.next();
        let crop = [random.unit(), random.unit(), random.unit(), random.unit()];
        Self { caption, crop, flip: random.next() >> 63 == 1 }
    }

    /// Which of `captions` captions to use; 0 if there are none.
    pub fn caption(&self, captions: usize) -> usize {
        let scaled = u128::from(self.caption) * captions as u128;
        usize::try_from(scaled >> 64).unwrap_or(0)
    }
}

/// Which of a pair's captions decides its cluster.
pub fn deciding_caption(seed: u64, key: &str, captions: usize) -> usize {
    Choices::new(seed, u64::MAX, key).caption(captions)
}

/// A number in [0, 1) that is `key`'s own: pairs below a share form a uniform sample of that share.
pub fn sample_draw(seed: u64, key: &str) -> f64 {
    Random::new(xxh3_64_with_seed(key.as_bytes(), seed ^ 0x5a4d)).unit()
}

/// A seeded stream of numbers whose values never change between versions (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1) with 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub const fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `0..below`.
    pub const fn below(&mut self, below: u64) -> u64 {
        ((self.next() as u128 * below as u128) >> 64) as u64
    }

    /// Fisher and Yates' shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1);
            items.swap(last, usize::try_from(other).expect("below a slice's length"));
        }
    }
}

#[cfg(test)]
mod tests;
