//! Balanced k-means over a sample of caption embeddings.

use super::balanced::assign_within;
use super::seeding::first_centres;
use super::{ClusterError, Points, check, means};
use crate::rng::Rng;

/// Rounds end when fewer than this share of the points change their cluster.
const SETTLED_SHARE: f64 = 1e-3;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FineOptions {
    pub clusters: usize,
    /// How far the largest cluster may pass the mean: 0.1 lets it hold 1.1 N/m, rounded up.
    pub balance: f64,
    pub max_iterations: usize,
    pub seed: u64,
}

impl Default for FineOptions {
    fn default() -> Self {
        Self { clusters: 64, balance: 0.1, max_iterations: 50, seed: 0 }
    }
}

/// Fine clusters of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct FineClusters {
    /// `[clusters, width]`, rows of unit length.
    pub centres: Vec<f32>,
    pub width: usize,
    /// Points of the sample in each cluster, under the balance.
    pub sizes: Vec<usize>,
    /// Cluster of each point of the sample, under the balance: not always the nearest centre.
    pub assignment: Vec<u32>,
    pub iterations: usize,
    /// Mean cosine of the points with the centres they are assigned to.
    pub mean_similarity: f64,
}

/// Clusters a sample so that no cluster passes its balance.
pub fn fine(sample: Points<'_>, options: &FineOptions) -> Result<FineClusters, ClusterError> {
    let FineOptions { clusters, balance, max_iterations, seed } = *options;
    check(sample, clusters)?;
    let width = sample.width();
    let capacity = capacity(sample.len(), clusters, balance);
    let mut rng = Rng::named(seed, "fine clusters");
    let mut centres = first_centres(sample, clusters, &mut rng);
    let mut assigned = assign_within(sample, Points { values: &centres, width }, capacity);
    let mut iterations = 1;
    while iterations < max_iterations.max(1) {
        reseed_empty(sample, &mut assigned.cluster, &assigned.similarity, clusters);
        means(sample, &assigned.cluster, None, &mut centres);
        let next = assign_within(sample, Points { values: &centres, width }, capacity);
        let moved = next.cluster.iter().zip(&assigned.cluster).filter(|(a, b)| a != b).count();
        assigned = next;
        iterations += 1;
        if moved as f64 <= SETTLED_SHARE * sample.len() as f64 {
            break;
        }
    }
    let sizes = sizes(&assigned.cluster, clusters);
    let total: f64 = assigned.similarity.iter().map(|&it| f64::from(it)).sum();
    let mean_similarity = total / sample.len() as f64;
    let assignment = assigned.cluster;
    Ok(FineClusters { centres, width, sizes, assignment, iterations, mean_similarity })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates; bounded below"
)]
fn capacity(points: usize, clusters: usize, balance: f64) -> usize {
    let mean = points as f64 / clusters as f64;
    let allowed = (mean * (1.0 + balance.max(0.0))) as usize;
    allowed.max(points.div_ceil(clusters)).min(points)
}

fn sizes(assignment: &[u32], clusters: usize) -> Vec<usize> {
    let mut sizes = vec![0; clusters];
    for &cluster in assignment {
        sizes[cluster as usize] += 1;
    }
    sizes
}

/// Gives each empty cluster the point that fits worst where it is.
fn reseed_empty(sample: Points<'_>, assignment: &mut [u32], similarity: &[f32], clusters: usize) {
    let mut sizes = sizes(assignment, clusters);
    let empty: Vec<usize> = (0..clusters).filter(|&cluster| sizes[cluster] == 0).collect();
    if empty.is_empty() {
        return;
    }
    let mut worst: Vec<usize> = (0..sample.len()).collect();
    worst.sort_by(|&a, &b| similarity[a].total_cmp(&similarity[b]).then(a.cmp(&b)));
    let mut worst = worst.into_iter();
    for cluster in empty {
        let mut spare = worst.by_ref().filter(|&point| sizes[assignment[point] as usize] > 1);
        let Some(point) = spare.next() else { return };
        sizes[assignment[point] as usize] -= 1;
        sizes[cluster] += 1;
        assignment[point] = u32::try_from(cluster).expect("cluster ids fit 32 bits");
    }
}
