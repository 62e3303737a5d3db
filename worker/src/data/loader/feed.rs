//! Makes one rank's share of one global batch.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use clade_core::ids::ModelId;
use clade_core::job::Failure;
use clade_core::order::{self, Choices, Draw, Order};
use clade_model::preprocess;
use clade_model::train::Batch;
use clade_store::DataManifest;
use xxhash_rust::xxh3::xxh3_64;

use super::indexes::Indexes;
use super::{Loaded, Shape};
use crate::context::Context;
use crate::data::index::PairRow;
use crate::data::shelf::Shelf;

/// Middle grey, for a slot whose picture cannot be read; no loss ever sees it.
const MASKED_PIXEL: u8 = 128;

/// Everything that batches are made from; shared with the thread that makes them.
pub(super) struct Feed {
    seed: u64,
    order: Order,
    global_batch: u32,
    rank: u32,
    share: Range<usize>,
    max_pixels: u64,
    shape: Shape,
    shelf: Shelf,
    indexes: Indexes,
    /// Keys already told of in the log.
    told: Mutex<BTreeSet<String>>,
}

/// One pair as its slot needs it.
struct Slot {
    pixels: Vec<u8>,
    tokens: Vec<i64>,
    masked: Option<&'static str>,
}

impl Feed {
    pub(super) fn new(
        context: &Context,
        model: ModelId,
        data: &DataManifest,
        shape: Shape,
    ) -> Self {
        let spec = &context.spec.spec;
        let (store, runtime) = (&context.store, &context.runtime);
        let global_batch = spec.training.global_batch;
        let share = order::share(global_batch, context.job.rank, context.job.ranks);
        let pairs = data.shards.iter().map(|shard| shard.pairs).collect();
        Self {
            seed: spec.seed,
            order: Order::new(spec.seed, model, &data.content(), pairs),
            global_batch,
            rank: context.job.rank,
            share: share.start as usize..share.end as usize,
            max_pixels: spec.dataset.max_pixels.0,
            shape,
            shelf: Shelf::new(store.clone(), runtime.clone(), data.shards.clone()),
            indexes: Indexes::new(store.clone(), runtime.clone()),
            told: Mutex::default(),
        }
    }

    pub(super) const fn rank(&self) -> u32 {
        self.rank
    }

    /// A reader's own copy of the order, which remembers the epoch it is in.
    pub(super) fn stream(&self) -> Order {
        self.order.clone()
    }

    pub(super) const fn global_batch(&self) -> u32 {
        self.global_batch
    }

    /// Reads this rank's share of the global batch at `cursor`.
    pub(super) fn load(&self, stream: &mut Order, cursor: u64) -> Result<Loaded, Failure> {
        let draws = stream.draws(cursor, u64::from(self.global_batch));
        let epoch = draws.first().map_or(0, |draw| draw.epoch);
        let pairs = draws
            .into_iter()
            .map(|draw| Ok((draw, self.row(draw)?)))
            .collect::<Result<Vec<_>, Failure>>()?;
        let slots = self.slots(&pairs[self.share.clone()])?;
        let mut batch = Batch::default();
        let mut masked = BTreeMap::new();
        for Slot { pixels, tokens, masked: cause } in slots {
            batch.pixels.extend(pixels);
            batch.tokens.extend(tokens);
            batch.valid.push(cause.is_none());
            if let Some(cause) = cause {
                *masked.entry(cause).or_default() += 1;
            }
        }
        let keys = pairs.into_iter().map(|(_, row)| row.key).collect();
        Ok(Loaded { batch, keys, epoch, masked })
    }

    fn row(&self, draw: Draw) -> Result<PairRow, Failure> {
        let rows = self.indexes.of(draw.at.shard, self.shelf.shard(draw.at.shard))?;
        Ok(rows[draw.at.index as usize].clone())
    }

    /// Makes the slots in order, on as many threads as the shape allows.
    fn slots(&self, pairs: &[(Draw, PairRow)]) -> Result<Vec<Slot>, Failure> {
        let make = |pairs: &[(Draw, PairRow)]| {
            pairs.iter().map(|(draw, row)| self.slot(*draw, row)).collect::<Result<Vec<_>, _>>()
        };
        if self.shape.threads <= 1 {
            return make(pairs);
        }
        let per_thread = pairs.len().div_ceil(self.shape.threads).max(1);
        std::thread::scope(|scope| {
            let parts: Vec<_> =
                pairs.chunks(per_thread).map(|part| scope.spawn(move || make(part))).collect();
            let mut slots = Vec::with_capacity(pairs.len());
            for part in parts {
                match part.join() {
                    Ok(made) => slots.extend(made?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(slots)
        })
    }

    fn slot(&self, draw: Draw, row: &PairRow) -> Result<Slot, Failure> {
        let choices = Choices::new(self.seed, draw.epoch, &row.key);
        let caption = row.captions.get(choices.caption(row.captions.len()));
        let tokens = (self.shape.tokens)(caption.map_or("", String::as_str));
        let bytes = self.shelf.read(draw.at.shard, row.offset, row.length)?;
        let side = self.shape.image_size;
        // Decoders are other people's code and have been known to panic on hostile bytes.
        let pixels = catch_unwind(AssertUnwindSafe(|| {
            let picture = preprocess::decode_rgb(&bytes, self.max_pixels)?;
            Ok(preprocess::train_pixels(&picture, side, crop_draw(&choices)))
        }))
        .unwrap_or_else(|_| {
            Err(preprocess::DecodeError::Unreadable("the decoder panicked".to_owned()))
        });
        match pixels {
            Ok(pixels) => Ok(Slot { pixels, tokens, masked: None }),
            Err(error) => {
                self.tell(draw, row, &error);
                let pixels = vec![MASKED_PIXEL; 3 * side * side];
                Ok(Slot { pixels, tokens, masked: Some(error.cause()) })
            }
        }
    }

    /// Logs a masked pair, the first time it is met.
    fn tell(&self, draw: Draw, row: &PairRow, error: &preprocess::DecodeError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(row.key.clone()) {
            let tar = &self.shelf.shard(draw.at.shard).tar;
            tracing::warn!(key = row.key, tar, %error, "a pair is masked out");
        }
    }
}

/// One number for the crop, from the pair's own choices.
fn crop_draw(choices: &Choices) -> u64 {
    let mut bytes = [0; 32];
    for (part, number) in bytes.chunks_exact_mut(8).zip(choices.crop) {
        part.copy_from_slice(&number.to_bits().to_le_bytes());
    }
    xxh3_64(&bytes)
}
