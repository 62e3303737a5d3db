//! Euclidean distances between embeddings, summed in f64 in the order of the columns.

use super::Rows;

/// The fine centre closest to a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Nearest {
    pub(super) centre: usize,
    /// Squared Euclidean distance.
    pub(super) squared: f64,
}

pub(super) fn squared_distance(left: &[f32], right: &[f32]) -> f64 {
    left.iter()
        .zip(right)
        .map(|(left, right)| {
            let difference = f64::from(*left) - f64::from(*right);
            difference * difference
        })
        .sum()
}

/// Ties go to the lower centre.
pub(super) fn nearest(row: &[f32], centres: Rows<'_>) -> Nearest {
    let mut best = Nearest { centre: 0, squared: squared_distance(row, centres.row(0)) };
    for centre in 1..centres.len() {
        let squared = squared_distance(row, centres.row(centre));
        if squared < best.squared {
            best = Nearest { centre, squared };
        }
    }
    best
}
