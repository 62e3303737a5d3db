//! First centres: k-means++, which draws each next one with odds of its squared distance.

use super::{Points, dot};
use crate::rng::Rng;

/// Chooses `clusters` different points as centres, seeded.
pub(super) fn first_centres(points: Points<'_>, clusters: usize, rng: &mut Rng) -> Vec<f32> {
    let mut chosen = vec![rng.below(points.len())];
    // Squared distance of unit vectors, halved: 1 - cosine.
    let mut distance = vec![f64::INFINITY; points.len()];
    let mut centres = points.row(chosen[0]).to_vec();
    while chosen.len() < clusters {
        let newest = points.row(chosen[chosen.len() - 1]);
        for (row, nearest) in points.rows().zip(&mut distance) {
            *nearest = nearest.min(f64::from(1.0 - dot(row, newest)).max(0.0));
        }
        for &used in &chosen {
            distance[used] = 0.0;
        }
        let next = draw(&distance, rng).unwrap_or_else(|| first_unused(&chosen, points.len()));
        chosen.push(next);
        centres.extend_from_slice(points.row(next));
    }
    centres
}

/// Draws an index with odds of its weight; none if nothing weighs more than rounding.
fn draw(weights: &[f64], rng: &mut Rng) -> Option<usize> {
    let total: f64 = weights.iter().sum();
    if total < 1e-9 {
        return None;
    }
    let mut left = rng.uniform() * total;
    let mut last = None;
    for (index, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = Some(index);
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last
}

fn first_unused(chosen: &[usize], points: usize) -> usize {
    (0..points).find(|index| !chosen.contains(index)).expect("more points than centres")
}
