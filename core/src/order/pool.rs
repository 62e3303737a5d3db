//! The pool of foreign pairs: which pair enters it, and for which of its passes.
//!
//! One pool serves every expert. Each pair of the dataset has a pass of its own, and an expert
//! draws in epoch *e* those of pass *e* that are not its own: a fresh sample of the share `ooc` of
//! the other experts' pairs. Only the passes that are planned are written, so the dataset is copied
//! once at most.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Random;

/// Keeps passes apart from the other choices made by key: `ooc`.
const POOL: u64 = 0x006f_6f63;

/// The pass in which the pair `key` is a foreign pair; it enters a pool of more passes than that.
///
/// `ooc` is the share of all pairs that each pass holds, from 0 to 1. Without a share no pool has
/// passes enough.
pub fn foreign_pass(seed: u64, key: &str, ooc: f64) -> u64 {
    if ooc <= 0.0 {
        return u64::MAX;
    }
    let draw = Random::new(xxh3_64_with_seed(key.as_bytes(), seed ^ POOL)).unit();
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and then no pool has it")]
    let pass = (draw / ooc).floor() as u64;
    pass
}

/// How many passes of the pool are written for `experts` experts that share `pairs` pairs.
///
/// `ooc` is the share of all pairs that each pass holds, `steps` the steps that each expert trains
/// with `global_batch` pairs per step, beyond the seed model's.
///
/// This is twice the passes that an expert of mean size makes over its own pairs, rounded up:
/// experts are unequal, the smaller ones make more passes, and their sizes are not known when the
/// pool is written. An expert that makes still more draws the pool again from its first pass, which
/// [`Order::wraps_at`](super::Order::wraps_at) tells. At least 1, and at most ⌈1 / ooc⌉, since by
/// then every pair is in the pool; 0 without a share.
pub fn planned_passes(ooc: f64, steps: u64, global_batch: u32, pairs: u64, experts: u32) -> u32 {
    if ooc <= 0.0 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "saturates, above any number of passes")]
    let all = (1.0 / ooc).ceil() as u32;
    let drawn = [global_batch, experts, 2].into_iter();
    let drawn = drawn.fold(u128::from(steps), |drawn, by| drawn.saturating_mul(u128::from(by)));
    let passes = drawn.div_ceil(u128::from(pairs.max(1)));
    u32::try_from(passes).unwrap_or(u32::MAX).clamp(1, all)
}
