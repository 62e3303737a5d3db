//! Captions of like length, computed together.
//!
//! Most captions are far shorter than the context, and positions after the end-of-text token change
//! nothing. A batch is cut into few buckets, each as long as its longest caption, so that the
//! positions computed are as few as pays.

use tch::Device;

/// What one more bucket costs, in positions: its share of work that does not grow with size.
pub(super) const fn cost_on(device: Device) -> usize {
    match device {
        // Some hundred small kernels, which a GPU runs as fast as it does thousands of positions.
        Device::Cuda(_) => 8192,
        Device::Cpu | Device::Mps | Device::Vulkan => 96,
    }
}

/// How many positions are computed of a caption that needs `length`.
pub(super) const fn length_on(device: Device, length: usize) -> usize {
    match device {
        // Its kernels like multiples, and its allocator few sizes.
        Device::Cuda(_) => length.next_multiple_of(8),
        Device::Cpu | Device::Mps | Device::Vulkan => length,
    }
}

/// Rows of a batch, and the positions computed of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) rows: Vec<i64>,
    pub(super) used: usize,
}

/// Cuts a batch so that positions computed plus the cost of buckets are least.
pub(super) fn cut(lengths: &[usize], bucket_cost: usize) -> Vec<Bucket> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| lengths[row]);
    // Ends of runs of equal length: only there a cut can be best.
    let ends: Vec<usize> = (1..=order.len())
        .filter(|&end| end == order.len() || lengths[order[end]] != lengths[order[end - 1]])
        .collect();
    let starts = || std::iter::once(0).chain(ends.iter().copied());
    // `best[i]`: least cost of all rows before `ends[i]`, and where its last bucket starts.
    let mut best: Vec<(usize, usize)> = Vec::with_capacity(ends.len());
    for &end in &ends {
        let used = lengths[order[end - 1]];
        let before = std::iter::once(0).chain(best.iter().map(|(cost, _)| *cost));
        let options = starts().zip(before).take_while(|(start, _)| *start < end);
        let costs = options.map(|(start, cost)| (cost + (end - start) * used + bucket_cost, start));
        best.push(costs.min().expect("a bucket may start at 0"));
    }
    let mut buckets = Vec::new();
    let mut end = order.len();
    while end > 0 {
        let index = ends.binary_search(&end).expect("buckets end where runs end");
        let start = best[index].1;
        let row = |row: &usize| i64::try_from(*row).expect("a batch fits memory");
        let used = lengths[order[end - 1]];
        buckets.push(Bucket { rows: order[start..end].iter().map(row).collect(), used });
        end = start;
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: usize = cost_on(Device::Cpu);

    #[test]
    fn every_row_lies_in_one_bucket_that_is_long_enough() {
        let lengths: Vec<usize> = (0..200).map(|i| 3 + i * 7919 % 74).collect();
        let buckets = cut(&lengths, COST);
        let mut rows: Vec<i64> = buckets.iter().flat_map(|it| it.rows.clone()).collect();
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..200));
        assert!(buckets.len() > 3, "such a spread pays for several buckets");
        for Bucket { rows, used } in buckets {
            let longest = rows.iter().map(|&row| lengths[usize::try_from(row).unwrap()]).max();
            assert_eq!(longest, Some(used));
        }
    }

    #[test]
    fn a_few_rows_or_rows_of_one_length_stay_together() {
        assert_eq!(cut(&[5, 3, 9, 4], COST).len(), 1);
        assert_eq!(cut(&[24; 512], COST).len(), 1);
        assert!(cut(&[], COST).is_empty());
    }
}
