//! What is chosen for one pair, by its key: caption, crop, flip, and membership of samples.
//!
//! Depends on no position in any stream, so a pair is treated alike wherever it is read.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Random;

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
