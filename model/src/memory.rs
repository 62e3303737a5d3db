//! How much memory training takes, by estimate: for saying what would have fitted, not for planning
//! to the byte.
//!
//! Counted are what libtorch keeps between the forward and the backward pass, in units of a tower's
//! width per position, and the buffers that do not grow with the batch. Captions are taken at full
//! length: shorter ones need less.

use std::fmt;

use tch::Device;

use crate::config::{BlockConfig, ModelConfig};
use crate::device::{self, Precision};

/// What decides about memory besides the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShape {
    pub precision: Precision,
    /// Only the blocks' inputs are kept between the passes.
    pub recompute: bool,
    /// Pairs of one rank's batch.
    pub rank_batch: usize,
    /// Pairs of the gang's batch.
    pub global_batch: usize,
    /// Pairs of one pass.
    pub micro_batch: usize,
}

/// Bytes of training one step.
pub fn estimate(config: &ModelConfig, parameters: usize, shape: MemoryShape) -> u64 {
    let MemoryShape { precision, recompute, rank_batch, global_batch, micro_batch } = shape;
    let (rank, global, micro) = (rank_batch as u64, global_batch as u64, micro_batch as u64);
    // Weights, two moments, gradient; in bf16 also rounded weights and their gradients.
    let per_parameter = match precision {
        Precision::F32 => 16,
        Precision::Bf16 => 20,
    };
    let size = unsigned(config.vision.image_size);
    let (patch, patches) = (unsigned(config.vision.patch_size), patches(config));
    let vision = tower(&config.vision.blocks, patches + 1, precision, recompute);
    let stem = patches * 3 * patch * patch * precision.bytes() + 3 * size * size * 4;
    let text =
        tower(&config.text.blocks, unsigned(config.text.context_length), precision, recompute);
    let pixels = 3 * size * size;
    let features = 8 * 4 * unsigned(config.embed_dim);
    parameters as u64 * per_parameter
        + micro * (vision + stem + text)
        + rank * (pixels + features)
        + 6 * 4 * rank * global
}

/// The largest micro-batch that fits into `capacity` bytes, by estimate; its multiples make up a
/// rank's batch.
pub fn largest_micro_batch(
    config: &ModelConfig,
    parameters: usize,
    shape: MemoryShape,
    capacity: u64,
) -> usize {
    let needs = |micro_batch| estimate(config, parameters, MemoryShape { micro_batch, ..shape });
    // The batch at hand did not fit, whatever the estimate says.
    let capacity = capacity.min(needs(shape.micro_batch) / 10 * 9);
    (1..shape.micro_batch).rev().find(|&micro| needs(micro) <= capacity).unwrap_or(0)
}

fn patches(config: &ModelConfig) -> u64 {
    unsigned(config.vision.image_size / config.vision.patch_size).pow(2)
}

/// Bytes per row of the batch.
fn tower(blocks: &BlockConfig, positions: u64, precision: Precision, recompute: bool) -> u64 {
    let (width, hidden) = (unsigned(blocks.width), unsigned(blocks.hidden()));
    // Input, norm, query-key-value, attention twice, sum, norm; MLP before and after activation.
    let kept = 9 * width + 2 * hidden;
    let in_passing = 2 * hidden + 4 * width;
    let layers = unsigned(blocks.layers);
    let per_position =
        if recompute { layers * width + kept + in_passing } else { layers * kept + in_passing };
    positions * per_position * precision.bytes()
}

fn unsigned(size: i64) -> u64 {
    u64::try_from(size).expect("sizes are validated as positive")
}

/// A step that did not fit, and what would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    pub device: String,
    pub shape: MemoryShape,
    /// Bytes in use at most until then; of the whole process on the CPU.
    pub peak: Option<u64>,
    /// Bytes this process may have.
    pub capacity: Option<u64>,
    /// The largest micro-batch that would have fitted, by estimate; 0: none would.
    pub would_fit: usize,
    /// What the allocator said.
    pub said: String,
}

impl OutOfMemory {
    /// Looks around after a step of `shape` failed.
    pub(crate) fn new(
        config: &ModelConfig,
        parameters: usize,
        shape: MemoryShape,
        device: Device,
        said: &str,
    ) -> Self {
        let capacity = device::capacity(device);
        let limit = capacity.unwrap_or(u64::MAX);
        Self {
            device: device::label(device),
            shape,
            peak: device::peak_bytes(device),
            capacity,
            would_fit: largest_micro_batch(config, parameters, shape, limit),
            said: said.lines().next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, shape, peak, capacity, would_fit, said } = self;
        let MemoryShape { precision, recompute, rank_batch, micro_batch, .. } = shape;
        let gib = |bytes: &Option<u64>| match bytes {
            Some(bytes) => format!("{:.1} GiB", *bytes as f64 / f64::from(1 << 30)),
            None => "an unknown number".to_owned(),
        };
        let recomputed = if *recompute { "with" } else { "without" };
        write!(
            f,
            "out of memory on {device}: a batch of {rank_batch} pairs, {micro_batch} at a time, in \
             {precision}, {recomputed} recomputation, had {} in use at its peak of {} there are",
            gib(peak),
            gib(capacity)
        )?;
        if *would_fit > 0 {
            write!(f, "; by estimate {would_fit} pairs would have fitted: lower the micro-batch")?;
        } else {
            write!(f, "; by estimate not even one pair at a time fits: take a smaller model")?;
        }
        if !recompute {
            write!(f, ", or turn recomputation on")?;
        }
        write!(f, " (the allocator: {said})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClipConfig;

    const SHAPE: MemoryShape = MemoryShape {
        precision: Precision::Bf16,
        recompute: false,
        rank_batch: 1024,
        global_batch: 1024,
        micro_batch: 1024,
    };

    #[test]
    fn what_is_said_to_fit_fits_by_the_same_estimate_and_is_less_than_what_did_not() {
        let config = ClipConfig::preset("ViT-L-14").unwrap().model;
        let needs =
            |micro_batch| estimate(&config, 427_600_000, MemoryShape { micro_batch, ..SHAPE });
        let capacity = 80 << 30;
        assert!(needs(1024) > capacity, "{} GiB", needs(1024) >> 30);
        let fits = largest_micro_batch(&config, 427_600_000, SHAPE, capacity);
        assert!(needs(fits) <= capacity && needs(fits + 1) > capacity, "{fits}");
        let wrong = largest_micro_batch(&config, 427_600_000, SHAPE, u64::MAX);
        assert!((800..1024).contains(&wrong), "{wrong}");
        assert_eq!(largest_micro_batch(&config, 427_600_000, SHAPE, 1 << 30), 0);
    }

    #[test]
    fn recomputation_keeps_a_fraction() {
        let config = ClipConfig::preset("ViT-L-14").unwrap().model;
        let [kept, recomputed] =
            [false, true].map(|recompute| estimate(&config, 0, MemoryShape { recompute, ..SHAPE }));
        assert!(recomputed * 6 < kept, "{recomputed} of {kept}");
    }
}
