//! One epoch's list: shards permuted, then pairs permuted within blocks of shards.
//!
//! Holds numbers per shard only. A block's shuffle has a seed of its own, (key, epoch, block), so
//! that each block can be laid out without the ones before it.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{PairAt, Random, ShardAt};

/// Own shards permuted together: pairs mix over this many tars at a time.
pub(super) const BLOCK_SHARDS: usize = 8;

/// Which shards make up which block of one epoch.
#[derive(Clone, Debug)]
pub(super) struct Epoch {
    number: u64,
    /// The pool's slice that this epoch draws.
    pass: u32,
    /// Made of the stream's key and the epoch's number.
    key: u64,
    own: Lane,
    foreign: Lane,
    /// Where each block begins, then where the last one ends.
    cuts: Vec<Cut>,
}

/// Where a block begins: the pairs of either lane before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) own: u64,
    pub(super) foreign: u64,
}

/// One block laid out.
#[derive(Clone, Debug)]
pub(super) struct Block {
    epoch: u64,
    /// Offset of the first pair in the epoch's list.
    start: u64,
    pairs: Vec<PairAt>,
}

/// Shards in a permuted sequence, their pairs counted through from the first shard to the last.
#[derive(Clone, Debug)]
struct Lane {
    shards: Vec<u32>,
    /// The number of the first pair of each of `shards`, then the number of pairs.
    starts: Vec<u64>,
}

impl Epoch {
    pub(super) fn new(
        key: u64,
        number: u64,
        pass: u32,
        own: impl Iterator<Item = u32>,
        foreign: impl Iterator<Item = u32>,
    ) -> Self {
        let key = xxh3_64_with_seed(&number.to_le_bytes(), key);
        let mut random = Random::new(key);
        let own = Lane::new(own, &mut random);
        let foreign = Lane::new(foreign, &mut random);
        let cuts = cuts(&own, &foreign);
        Self { number, pass, key, own, foreign, cuts }
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Where each block begins, then where the last one ends.
    #[cfg(test)]
    pub(super) fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Lays out the block that holds the pair at `offset` of the epoch's list.
    pub(super) fn block_at(&self, offset: u64) -> Block {
        self.block(self.block_where(|cut| cut.offset() <= offset))
    }

    /// Where the block that holds `offset` ends in the epoch's list, and the shards it reads.
    pub(super) fn shards_at(&self, offset: u64) -> (u64, Vec<ShardAt>) {
        let block = self.block_where(|cut| cut.offset() <= offset);
        let (from, to) = (self.cuts[block], self.cuts[block + 1]);
        let own = self.own.parts(from.own..to.own).map(|(shard, _)| ShardAt::Own(shard));
        let foreign = self.foreign.parts(from.foreign..to.foreign);
        let foreign = foreign.map(|(shard, _)| ShardAt::Foreign(shard));
        (to.offset(), own.chain(foreign).collect())
    }

    /// The offset of a pair in this epoch's list; none if this epoch does not draw it.
    pub(super) fn offset_of(&self, at: PairAt) -> Option<u64> {
        let block = match at {
            PairAt::Own { shard, index } => {
                let number = self.own.number_of(shard, index)?;
                self.block_where(|cut| cut.own <= number)
            }
            PairAt::Foreign { shard, pass, index } if pass == self.pass => {
                let number = self.foreign.number_of(shard, index)?;
                self.block_where(|cut| cut.foreign <= number)
            }
            PairAt::Foreign { .. } => return None,
        };
        let Block { start, pairs, .. } = self.block(block);
        let within = pairs.iter().position(|&pair| pair == at)?;
        Some(start + within as u64)
    }

    /// The last block of which `begins` holds; blocks without pairs are never it.
    fn block_where(&self, begins: impl Fn(&Cut) -> bool) -> usize {
        self.cuts.partition_point(begins) - 1
    }

    fn block(&self, block: usize) -> Block {
        let (from, to) = (self.cuts[block], self.cuts[block + 1]);
        let pass = self.pass;
        let own = self.own.parts(from.own..to.own);
        let own = own.flat_map(|(shard, part)| part.map(move |index| PairAt::Own { shard, index }));
        let foreign = self.foreign.parts(from.foreign..to.foreign);
        let foreign = foreign.flat_map(|(shard, part)| {
            part.map(move |index| PairAt::Foreign { shard, pass, index })
        });
        let mut pairs: Vec<PairAt> = own.chain(foreign).collect();
        let seed = xxh3_64_with_seed(&(block as u64).to_le_bytes(), self.key);
        Random::new(seed).shuffle(&mut pairs);
        Block { epoch: self.number, start: from.offset(), pairs }
    }
}

/// Cuts the own shards into blocks, and deals the foreign pairs out in proportion to own ones.
fn cuts(own: &Lane, foreign: &Lane) -> Vec<Cut> {
    let share = |before: u64| {
        let scaled = u128::from(foreign.pairs()) * u128::from(before);
        let share = scaled / u128::from(own.pairs().max(1));
        u64::try_from(share).expect("a part is not above the whole")
    };
    let ends = own.starts.iter().copied().step_by(BLOCK_SHARDS);
    // The last block may be shorter; ending an epoch of whole blocks twice adds an empty one.
    ends.chain([own.pairs()]).map(|own| Cut { own, foreign: share(own) }).collect()
}

impl Cut {
    /// The offset in the epoch's list.
    pub(super) const fn offset(self) -> u64 {
        self.own + self.foreign
    }
}

impl Block {
    pub(super) fn holds(&self, epoch: u64, offset: u64) -> bool {
        self.epoch == epoch && (self.start..self.end()).contains(&offset)
    }

    /// Offset in the epoch's list of the first pair after this block.
    pub(super) fn end(&self) -> u64 {
        self.start + self.pairs.len() as u64
    }

    /// The pairs at offsets of the epoch's list that lie in this block.
    pub(super) fn pairs(&self, offsets: Range<u64>) -> &[PairAt] {
        let within = |offset: u64| usize::try_from(offset - self.start).expect("a block's length");
        &self.pairs[within(offsets.start)..within(offsets.end)]
    }

    /// Pairs that this block holds in memory.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.pairs.len()
    }
}

impl Lane {
    /// Permutes shards of the given numbers of pairs.
    fn new(pairs: impl Iterator<Item = u32>, random: &mut Random) -> Self {
        let mut sequence: Vec<(u32, u32)> = (0..).zip(pairs).collect();
        random.shuffle(&mut sequence);
        let (mut starts, mut end) = (vec![0], 0);
        for &(_, pairs) in &sequence {
            end += u64::from(pairs);
            starts.push(end);
        }
        Self { shards: sequence.into_iter().map(|(shard, _)| shard).collect(), starts }
    }

    fn pairs(&self) -> u64 {
        self.starts[self.shards.len()]
    }

    /// The number of a pair in this lane; none if the lane does not hold it.
    fn number_of(&self, shard: u32, index: u32) -> Option<u64> {
        let place = self.shards.iter().position(|&it| it == shard)?;
        let number = self.starts[place] + u64::from(index);
        (number < self.starts[place + 1]).then_some(number)
    }

    /// The parts of shards that hold the pairs of these numbers, as ranges of indexes.
    fn parts(&self, numbers: Range<u64>) -> impl Iterator<Item = (u32, Range<u32>)> {
        let first = self.starts.partition_point(|&start| start <= numbers.start) - 1;
        let shards = self.shards[first..].iter();
        let ranges = self.starts[first..].windows(2).map(|pair| (pair[0], pair[1]));
        let Range { start: from, end: to } = numbers;
        shards.zip(ranges).take_while(move |(_, (start, _))| *start < to).map(
            move |(&shard, (start, end))| {
                let index = |number: u64| {
                    u32::try_from(number - start).expect("a shard's pairs are counted in u32")
                };
                (shard, index(from.max(start))..index(to.min(end)))
            },
        )
    }
}
