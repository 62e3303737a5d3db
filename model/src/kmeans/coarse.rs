//! k-means over the fine centres: which expert each of them belongs to.

use super::seeding::first_centres;
use super::{ClusterError, Points, check, dot, means};
use crate::rng::Rng;

/// Independent starts; the one with the largest mean similarity is kept.
const STARTS: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoarseOptions {
    pub clusters: usize,
    /// How far the heaviest cluster may pass the mean weight; none: as heavy as it comes.
    pub balance: Option<f64>,
    pub max_iterations: usize,
    pub seed: u64,
}

impl Default for CoarseOptions {
    fn default() -> Self {
        Self { clusters: 4, balance: None, max_iterations: 100, seed: 0 }
    }
}

/// The grouping of fine clusters into experts.
#[derive(Clone, Debug, PartialEq)]
pub struct CoarseClusters {
    /// `[clusters, width]`, rows of unit length.
    pub centres: Vec<f32>,
    /// Coarse cluster of each fine one; every coarse cluster occurs.
    pub of_fine: Vec<u32>,
    pub iterations: usize,
}

/// Groups fine centres; `weights` are the pairs of each, by default all alike.
///
/// With a balance, a cluster that is full turns its farthest fine centres away, as far as these are
/// small enough to be moved; one fine centre is never split.
pub fn coarse(
    centres: Points<'_>,
    weights: Option<&[f64]>,
    options: &CoarseOptions,
) -> Result<CoarseClusters, ClusterError> {
    check(centres, options.clusters)?;
    if let Some(weights) = weights
        && weights.len() != centres.len()
    {
        return Err(ClusterError::Weights { weights: weights.len(), points: centres.len() });
    }
    let even = vec![1.0; centres.len()];
    // A fine cluster without pairs still has a centre, and must weigh something.
    let weights: Vec<f64> =
        weights.unwrap_or(&even).iter().map(|weight| weight.max(1e-6)).collect();
    let mut best: Option<(f64, CoarseClusters)> = None;
    for start in 0..STARTS {
        let (score, found) = one_start(centres, &weights, options, start);
        if best.as_ref().is_none_or(|(best, _)| score > *best) {
            best = Some((score, found));
        }
    }
    Ok(best.expect("there is at least one start").1)
}

fn one_start(
    points: Points<'_>,
    weights: &[f64],
    options: &CoarseOptions,
    start: u64,
) -> (f64, CoarseClusters) {
    let &CoarseOptions { clusters, balance, max_iterations, seed } = options;
    let width = points.width();
    let mut rng = Rng::named(seed.wrapping_add(start << 32), "coarse clusters");
    let mut centres = first_centres(points, clusters, &mut rng);
    let limit = balance
        .map(|balance| (1.0 + balance.max(0.0)) * weights.iter().sum::<f64>() / clusters as f64);
    let mut of_fine = Vec::new();
    let mut iterations = 0;
    while iterations < max_iterations.max(1) {
        let similarities: Vec<f32> = points
            .rows()
            .flat_map(|row| centres.chunks_exact(width).map(|centre| dot(row, centre)))
            .collect();
        let mut next = place(&similarities, clusters, weights, limit);
        fill_empty(&mut next, &similarities, clusters);
        iterations += 1;
        let is_settled = next == of_fine;
        of_fine = next;
        means(points, &of_fine, Some(weights), &mut centres);
        if is_settled {
            break;
        }
    }
    let fit = |(index, row): (usize, &[f32])| {
        let cluster = of_fine[index] as usize;
        weights[index] * f64::from(dot(row, &centres[cluster * width..(cluster + 1) * width]))
    };
    let score = points.rows().enumerate().map(fit).sum();
    (score, CoarseClusters { centres, of_fine, iterations })
}

/// Puts each point to its nearest cluster, or the nearest with room for its weight.
///
/// Points whose nearest cluster is clearest choose first; one that fits nowhere goes to the
/// lightest.
fn place(similarities: &[f32], clusters: usize, weights: &[f64], limit: Option<f64>) -> Vec<u32> {
    let rows: Vec<&[f32]> = similarities.chunks_exact(clusters).collect();
    let ranked = |row: &[f32]| {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        order
    };
    let margin = |row: &[f32]| {
        let order = ranked(row);
        row[order[0]] - order.get(1).map_or(-1.0, |&second| row[second])
    };
    let margins: Vec<f32> = rows.iter().map(|row| margin(row)).collect();
    let mut points: Vec<usize> = (0..rows.len()).collect();
    points.sort_by(|&a, &b| margins[b].total_cmp(&margins[a]).then(a.cmp(&b)));
    let mut load = vec![0.0; clusters];
    let mut placed = vec![0; rows.len()];
    for point in points {
        let order = ranked(rows[point]);
        let has_room =
            |cluster: &usize| limit.is_none_or(|it| load[*cluster] + weights[point] <= it);
        let lightest = || (0..clusters).min_by(|&a, &b| load[a].total_cmp(&load[b]));
        let cluster = order.into_iter().find(has_room).or_else(lightest).unwrap_or(0);
        load[cluster] += weights[point];
        placed[point] = u32::try_from(cluster).expect("cluster ids fit 32 bits");
    }
    placed
}

/// Gives each empty cluster the point nearest to it among those that are not alone.
fn fill_empty(placed: &mut [u32], similarities: &[f32], clusters: usize) {
    for cluster in 0..clusters {
        let id = u32::try_from(cluster).expect("cluster ids fit 32 bits");
        if placed.contains(&id) {
            continue;
        }
        let is_alone = |of: u32| placed.iter().filter(|&&it| it == of).count() == 1;
        let likeness = |point: &usize| similarities[point * clusters + cluster];
        let candidates = (0..placed.len()).filter(|&point| !is_alone(placed[point]));
        let nearest = candidates.max_by(|a, b| likeness(a).total_cmp(&likeness(b)).then(b.cmp(a)));
        if let Some(point) = nearest {
            placed[point] = id;
        }
    }
}
