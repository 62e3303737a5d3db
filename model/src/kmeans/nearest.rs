//! Inner products of points and centres, a block of points at a time.

use tch::Tensor;

use super::{ClusterError, Points};

/// Values of one block of products.
const BLOCK_VALUES: usize = 1 << 22;

/// The centre a point belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest {
    pub cluster: u32,
    /// Inner product with it: the cosine.
    pub similarity: f32,
}

/// Finds the nearest centre of each point; a tie goes to the lower id.
pub fn assign(points: Points<'_>, centres: Points<'_>) -> Result<Vec<Nearest>, ClusterError> {
    if points.width() != centres.width() {
        return Err(ClusterError::Width { points: points.width(), centres: centres.width() });
    }
    if centres.is_empty() {
        return Err(ClusterError::NoClusters);
    }
    let mut found = Vec::with_capacity(points.len());
    for_each_row(points, centres, |_, similarities| found.push(best(similarities)));
    Ok(found)
}

fn best(similarities: &[f32]) -> Nearest {
    let mut best = Nearest { cluster: 0, similarity: f32::NEG_INFINITY };
    for (cluster, &similarity) in (0_u32..).zip(similarities) {
        if similarity > best.similarity {
            best = Nearest { cluster, similarity };
        }
    }
    best
}

/// Calls `visit` with each point's index and its products with all centres, in order.
pub(super) fn for_each_row(
    points: Points<'_>,
    centres: Points<'_>,
    mut visit: impl FnMut(usize, &[f32]),
) {
    let _no_graph = tch::no_grad_guard();
    let (width, count) = (centres.width(), centres.len());
    let transposed = matrix(centres.values, width).tr().contiguous(); // [width, centres]
    let block = (BLOCK_VALUES / count.max(width)).max(1);
    for (index, values) in points.values.chunks(block * width).enumerate() {
        let products = matrix(values, width).matmul(&transposed); // [block, centres]
        let products = products.contiguous();
        for (offset, row) in crate::native::values(&products).chunks_exact(count).enumerate() {
            visit(index * block + offset, row);
        }
    }
}

fn matrix(values: &[f32], width: usize) -> Tensor {
    let width = i64::try_from(width).expect("a row fits memory");
    Tensor::from_slice(values).view([-1, width])
}
