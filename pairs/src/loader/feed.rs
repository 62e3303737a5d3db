//! Makes one rank's share of one global batch.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clade_core::ids::ModelId;
use clade_core::job::Failure;
use clade_core::order::{self, Choices, Draw, Order, PairAt, ShardAt, Sources};
use clade_pictures::{Darkroom, DecodeError};
use clade_store::DataManifest;
use xxhash_rust::xxh3::xxh3_64;

use super::prefetch::Prefetch;
use super::tally::Tally;
use super::{Loaded, Place, Shape, Stream};
use crate::index::PairRow;
use crate::indexes::{Held, Indexes};
use crate::shelf::Shelf;

/// Middle grey, for a slot whose picture cannot be read; no loss ever sees it.
const MASKED_PIXEL: u8 = 128;

/// Everything that batches are made from; shared with the threads that make them.
pub(super) struct Feed<M> {
    stream: Stream,
    order: Order,
    share: Range<usize>,
    /// Shards of the model's own; those of the pool follow.
    own: usize,
    passes: usize,
    /// Pairs of each pass of each shard of the pool.
    foreign: Vec<Vec<u32>>,
    shape: Shape<M>,
    shelf: Shelf,
    indexes: Indexes,
    tally: Mutex<Tally>,
    /// Idle ones: each thread takes one while it works.
    darkrooms: Mutex<Vec<Darkroom>>,
    has_wrapped: AtomicBool,
}

/// A pair of this rank's share.
struct Pair {
    draw: Draw,
    shard: usize,
    row: PairRow,
}

/// One pair as its slot needs it, without its pixels.
struct Slot {
    at: usize,
    tokens: Vec<i64>,
    masked: Option<&'static str>,
}

impl<M: AsMut<[u8]> + Send + 'static> Feed<M> {
    pub(super) fn new(place: Place, stream: Stream, data: &DataManifest, shape: Shape<M>) -> Self {
        let Place { store, runtime, cache } = place;
        let share = order::share(stream.global_batch, stream.rank, stream.ranks);
        let foreign: Vec<Vec<u32>> = data.foreign.iter().map(|it| it.by_pass.clone()).collect();
        let passes = foreign.iter().map(Vec::len).max().unwrap_or(0);
        let own = data.shards.iter().map(|shard| shard.pairs).collect();
        let sources = Sources { own, foreign: foreign.clone() };
        let pool = data.foreign.iter().map(|foreign| foreign.shard.clone());
        Self {
            order: Order::new(stream.seed, stream.model, &data.content(), sources),
            share: share.start as usize..share.end as usize,
            own: data.shards.len(),
            passes,
            foreign,
            shape,
            shelf: Shelf::new(
                store.clone(),
                runtime.clone(),
                cache,
                data.shards.iter().cloned().chain(pool).collect(),
            ),
            indexes: Indexes::new(store, runtime),
            stream,
            tally: Mutex::default(),
            darkrooms: Mutex::default(),
            has_wrapped: AtomicBool::new(false),
        }
    }

    pub(super) const fn rank(&self) -> u32 {
        self.stream.rank
    }

    pub(super) const fn global_batch(&self) -> u32 {
        self.stream.global_batch
    }

    /// A reader's own copy of the order, which remembers the epoch it is in.
    pub(super) fn order(&self) -> Order {
        self.order.clone()
    }

    pub(super) fn prefetch(self: &Arc<Self>) -> io::Result<Prefetch> {
        Prefetch::start(Arc::clone(self))
    }

    /// Makes a shard ready to be read.
    pub(super) fn prepare(&self, shard: ShardAt) -> Result<(), Failure> {
        let number = self.number_of(shard);
        self.index(number)?;
        self.shelf.prepare(number)
    }

    /// Whether nobody but the caller has this any more.
    pub(super) fn is_left(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    /// Number of a shard among all of them.
    const fn number_of(&self, shard: ShardAt) -> usize {
        match shard {
            ShardAt::Own(shard) => shard as usize,
            ShardAt::Foreign(shard) => self.own + shard as usize,
        }
    }

    /// Reads this rank's share of the global batch at `cursor`.
    pub(super) fn load(&self, order: &mut Order, cursor: u64) -> Result<Loaded<M>, Failure> {
        let draws = order.draws(cursor, u64::from(self.stream.global_batch));
        let epoch = draws.first().map_or(0, |draw| draw.epoch);
        self.tell_wrap(epoch);
        let mut keys = Vec::with_capacity(draws.len());
        let mut pairs = Vec::with_capacity(self.share.len());
        for (slot, draw) in draws.into_iter().enumerate() {
            let (held, row) = self.place(draw)?;
            keys.push(held.index.key(row).to_owned());
            if self.share.contains(&slot) {
                let shard = self.number_of(draw.at.shard());
                pairs.push(Pair { draw, shard, row: held.index.row(row) });
            }
        }
        let side = self.shape.image_size;
        let mut pixels = (self.shape.memory)(pairs.len() * 3 * side * side);
        let mut slots = self.slots(&pairs, pixels.as_mut())?;
        slots.sort_by_key(|slot| slot.at);
        let mut tokens = Vec::new();
        let (mut valid, mut masked) = (Vec::with_capacity(slots.len()), BTreeMap::new());
        for slot in slots {
            tokens.extend(slot.tokens);
            valid.push(slot.masked.is_none());
            if let Some(cause) = slot.masked {
                *masked.entry(cause).or_default() += 1;
            }
        }
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.judge(valid.len() as u64, self.stream.max_bad_share)?;
        Ok(Loaded { pixels, tokens, valid, keys, epoch, masked })
    }

    /// The index that a pair stands in, and its row there.
    fn place(&self, draw: Draw) -> Result<(Arc<Held>, usize), Failure> {
        let held = self.index(self.number_of(draw.at.shard()))?;
        let row = match draw.at {
            PairAt::Own { index, .. } => index,
            PairAt::Foreign { pass, index, .. } => held.by_pass[pass as usize][index as usize],
        };
        Ok((held, row as usize))
    }

    fn index(&self, number: usize) -> Result<Arc<Held>, Failure> {
        let counts = number.checked_sub(self.own).map(|number| &*self.foreign[number]);
        let view = match self.stream.model {
            ModelId::Expert(expert) => counts.map(|counts| (expert, counts)),
            ModelId::Seed | ModelId::Dense => None,
        };
        self.indexes.of(number, self.shelf.shard(number), view)
    }

    /// Fills the slots, on as many threads as the shape allows, each taking the next one that is free.
    fn slots(&self, pairs: &[Pair], pixels: &mut [u8]) -> Result<Vec<Slot>, Failure> {
        let side = self.shape.image_size;
        let waiting =
            Mutex::new(pairs.iter().zip(pixels.chunks_exact_mut(3 * side * side)).enumerate());
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let mut bench = Bench { darkroom: self.darkroom(), bytes: Vec::new() };
            let mut slots = Vec::new();
            while let Some((at, (pair, out))) = next() {
                slots.push(self.slot(at, pair, out, &mut bench)?);
            }
            let mut idle = self.darkrooms.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(bench.darkroom);
            Ok(slots)
        };
        let others = self.shape.threads.saturating_sub(1);
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            let mut slots = work();
            for other in others {
                let more = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                slots = slots.and_then(|mut slots| {
                    slots.extend(more?);
                    Ok(slots)
                });
            }
            slots
        })
    }

    fn darkroom(&self) -> Darkroom {
        let mut idle = self.darkrooms.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().unwrap_or_default()
    }

    fn slot(
        &self,
        at: usize,
        pair: &Pair,
        out: &mut [u8],
        bench: &mut Bench,
    ) -> Result<Slot, Failure> {
        let Pair { draw, shard, row } = pair;
        let choices = Choices::new(self.stream.seed, draw.epoch, &row.key);
        let caption = row.captions.get(choices.caption(row.captions.len()));
        let tokens = (self.shape.tokens)(caption.map_or("", String::as_str));
        let fault = if self.shelf.read(*shard, row, &mut bench.bytes)? {
            self.develop(&choices, out, bench).err().map(|error| (error.cause(), error.to_string()))
        } else {
            Some(("changed", "its bytes are not those that were indexed".to_owned()))
        };
        if let Some((_, fault)) = &fault {
            out.fill(MASKED_PIXEL);
            self.tell(*shard, row, fault);
        }
        Ok(Slot { at, tokens, masked: fault.map(|(cause, _)| cause) })
    }

    /// Makes pixels of the bytes on the bench.
    fn develop(
        &self,
        choices: &Choices,
        out: &mut [u8],
        bench: &mut Bench,
    ) -> Result<(), DecodeError> {
        let Bench { darkroom, bytes } = bench;
        let (limit, side, detail) =
            (self.stream.max_pixels, self.shape.image_size, self.shape.detail);
        // Decoders are other people's code and have been known to panic on hostile bytes.
        let made = catch_unwind(AssertUnwindSafe(|| {
            darkroom.train_pixels_into(bytes, limit, side, crop_draw(choices), detail, out)
        }));
        made.unwrap_or_else(|_| {
            // Nobody knows what state it was left in.
            *darkroom = Darkroom::default();
            Err(DecodeError::Unreadable("the decoder panicked".to_owned()))
        })
    }

    /// Counts a masked pair, and logs it the first time it is met.
    fn tell(&self, shard: usize, row: &PairRow, fault: &str) {
        let (key, offset, tar) = (&row.key, row.offset, &self.shelf.shard(shard).tar);
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if tally.mask(key, || format!("{key} ({tar} at {offset}): {fault}")) {
            tracing::warn!(key, tar, offset, fault, "a pair is masked out");
        }
    }

    /// Tells once that the foreign pool begins anew.
    fn tell_wrap(&self, epoch: u64) {
        let wraps = self.order.wraps_at().is_some_and(|first| epoch >= first);
        if wraps && !self.has_wrapped.swap(true, Ordering::Relaxed) {
            let (model, passes) = (self.stream.model, self.passes);
            tracing::warn!(%model, epoch, passes, "every foreign pair was drawn: the pool begins anew");
        }
    }
}

/// What one thread works with.
struct Bench {
    darkroom: Darkroom,
    /// The picture's file.
    bytes: Vec<u8>,
}

/// One number for the crop, from the pair's own choices.
fn crop_draw(choices: &Choices) -> u64 {
    let mut bytes = [0; 32];
    for (part, number) in bytes.chunks_exact_mut(8).zip(choices.crop) {
        part.copy_from_slice(&number.to_bits().to_le_bytes());
    }
    xxh3_64(&bytes)
}
