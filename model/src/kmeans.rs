//! Spherical k-means: fine and balanced over captions, coarse over the fine centres.
//!
//! Rows are unit vectors and centres unit means, so the nearest centre is the one of the largest
//! inner product. Products are computed in blocks: memory is bounded whatever the number of points.
//! Everything follows from the seed.
//!
//! Invariants: in a fine clustering no cluster holds more than its capacity of the sample, and
//! points that find their cluster full go to the best centre that prefers them to what it holds —
//! never to some leftover cluster; no coarse cluster is empty.

mod balanced;
mod coarse;
mod fine;
mod nearest;
mod seeding;

pub use coarse::{CoarseClusters, CoarseOptions, coarse};
pub use fine::{FineClusters, FineOptions, fine};
pub use nearest::{Nearest, assign};

/// Why points cannot be clustered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClusterError {
    #[error("{values} values do not divide into rows of {width}")]
    Ragged { values: usize, width: usize },
    #[error("row {row} holds a value that is not finite, or is nought throughout")]
    BadRow { row: usize },
    #[error("{points} points cannot make {clusters} clusters: have at least as many points")]
    TooFewPoints { points: usize, clusters: usize },
    #[error("the number of clusters must be at least 1")]
    NoClusters,
    #[error("points are {points} wide and centres {centres}")]
    Width { points: usize, centres: usize },
    #[error("there are {weights} weights for {points} points")]
    Weights { weights: usize, points: usize },
}

/// Rows of unit length, borrowed as one slice.
#[derive(Clone, Copy, Debug)]
pub struct Points<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Points<'a> {
    /// Takes `values` as rows of `width`, each finite and not nought.
    pub fn new(values: &'a [f32], width: usize) -> Result<Self, ClusterError> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(ClusterError::Ragged { values: values.len(), width });
        }
        let is_bad = |row: &[f32]| {
            let norm: f32 = row.iter().map(|value| value * value).sum();
            !(norm.is_finite() && norm > 0.0)
        };
        match values.chunks_exact(width).position(is_bad) {
            Some(row) => Err(ClusterError::BadRow { row }),
            None => Ok(Self { values, width }),
        }
    }

    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    pub(crate) fn rows(&self) -> std::slice::ChunksExact<'a, f32> {
        self.values.chunks_exact(self.width)
    }
}

fn check(points: Points<'_>, clusters: usize) -> Result<(), ClusterError> {
    if clusters == 0 {
        return Err(ClusterError::NoClusters);
    }
    if points.len() < clusters {
        return Err(ClusterError::TooFewPoints { points: points.len(), clusters });
    }
    Ok(())
}

/// Inner product, added up in a fixed order.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// Unit means of the points of each cluster, weighted; a cluster without any keeps its centre.
#[expect(clippy::cast_possible_truncation, reason = "summed in f64, kept in f32")]
fn means(points: Points<'_>, assignment: &[u32], weights: Option<&[f64]>, centres: &mut [f32]) {
    let width = points.width();
    let mut sums = vec![0.0_f64; centres.len()];
    for (index, (row, &cluster)) in points.rows().zip(assignment).enumerate() {
        let weight = weights.map_or(1.0, |weights| weights[index]);
        let sum = &mut sums[cluster as usize * width..(cluster as usize + 1) * width];
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * f64::from(*value));
    }
    for (centre, sum) in centres.chunks_exact_mut(width).zip(sums.chunks_exact(width)) {
        let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        if norm > 1e-9 {
            centre.iter_mut().zip(sum).for_each(|(centre, sum)| *centre = (sum / norm) as f32);
        }
    }
}

#[cfg(test)]
mod tests;
