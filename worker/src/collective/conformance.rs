//! What every way of exchanging numbers must do, whatever it runs on: called by all ranks of a gang at once.

use clade_core::order::Random;
use clade_model::collective::{Collective, CollectiveError};
use clade_model::tch::{Device, Tensor};

/// Nothing, less than one per rank, odd, a few pieces, and many pieces for every rank.
pub const COUNTS: [usize; 6] = [0, 1, 3, 1_001, 500_009, 4_000_000];

/// What one rank found wrong.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("{what} of {count} values: {source}")]
    Failed { what: &'static str, count: usize, source: CollectiveError },
    #[error("{what} of {count} values: value {at} is {found}, not {expected}")]
    Wrong { what: &'static str, count: usize, at: usize, found: f32, expected: f64 },
    #[error("a sum of {count} values has other bits on rank {rank}")]
    Torn { count: usize, rank: usize },
}

/// The values that `rank` brings: whole numbers over 1,024, so that sums of few are exact in any order.
#[expect(clippy::cast_precision_loss, reason = "numbers below 2,048")]
pub fn values(rank: usize, count: usize) -> Vec<f32> {
    let mut random = Random::new(rank as u64 + 1);
    (0..count).map(|_| random.below(2_048) as f32 / 1_024.0 - 1.0).collect()
}

/// Values whose sum depends on the order.
#[expect(clippy::cast_possible_truncation, reason = "any f32 will do")]
fn rough(rank: usize, count: usize) -> Vec<f32> {
    let mut random = Random::new(rank as u64 + 99);
    (0..count).map(|_| (random.unit() as f32 - 0.5) / 3.0).collect()
}

/// Sums, gathers, broadcasts and barriers over buffers of each of `counts`, from every root.
///
/// # Errors
///
/// The first difference from what must come out.
pub fn check(collective: &mut dyn Collective, counts: &[usize]) -> Result<(), Unfit> {
    for &count in counts {
        sums(collective, count)?;
        same_bits(collective, count)?;
        gathers(collective, count)?;
        broadcasts(collective, count)?;
        let barrier = collective.barrier();
        barrier.map_err(|source| Unfit::Failed { what: "a barrier", count, source })?;
    }
    Ok(())
}

fn sums(collective: &mut dyn Collective, count: usize) -> Result<(), Unfit> {
    let what = "a sum";
    let mut sum = values(collective.rank(), count);
    let summed = collective.all_reduce_sum(&mut sum);
    summed.map_err(|source| Unfit::Failed { what, count, source })?;
    let mut expected = vec![0.0_f64; count];
    for rank in 0..collective.world_size() {
        for (sum, value) in expected.iter_mut().zip(values(rank, count)) {
            *sum += f64::from(value);
        }
    }
    compare(what, &sum, expected.into_iter())
}

/// Each element is summed in one place: who decides by a sum decides as all others do.
fn same_bits(collective: &mut dyn Collective, count: usize) -> Result<(), Unfit> {
    let failed = |source| Unfit::Failed { what: "a rough sum", count, source };
    let mut sum = rough(collective.rank(), count);
    collective.all_reduce_sum(&mut sum).map_err(failed)?;
    let mut all = Vec::new();
    collective.all_gather(&sum, &mut all).map_err(failed)?;
    let is_torn = |theirs: &[f32]| theirs.iter().zip(&sum).any(|(a, b)| a.to_bits() != b.to_bits());
    match all.chunks_exact(count.max(1)).position(is_torn) {
        Some(rank) => Err(Unfit::Torn { count, rank }),
        None => Ok(()),
    }
}

fn gathers(collective: &mut dyn Collective, count: usize) -> Result<(), Unfit> {
    let what = "a gather";
    let mut all = vec![7.0];
    let gathered = collective.all_gather(&values(collective.rank(), count), &mut all);
    gathered.map_err(|source| Unfit::Failed { what, count, source })?;
    let expected = (0..collective.world_size()).flat_map(|rank| values(rank, count));
    compare(what, &all, expected.map(f64::from))
}

fn broadcasts(collective: &mut dyn Collective, count: usize) -> Result<(), Unfit> {
    let what = "a broadcast";
    for root in 0..collective.world_size() {
        let mut own = values(collective.rank(), count);
        let told = collective.broadcast(root, &mut own);
        told.map_err(|source| Unfit::Failed { what, count, source })?;
        compare(what, &own, values(root, count).into_iter().map(f64::from))?;
    }
    Ok(())
}

/// The same of tensors on a GPU: sums and gathers of each of `counts`.
///
/// # Errors
///
/// The first difference from what must come out.
pub fn check_on_device(
    collective: &mut dyn Collective,
    device: Device,
    counts: &[usize],
) -> Result<(), Unfit> {
    let (rank, ranks) = (collective.rank(), collective.world_size());
    for &count in counts {
        let on_device = |values: &[f32]| Tensor::from_slice(values).to_device(device);
        let on_host = |tensor: &Tensor| {
            let flat = tensor.to_device(Device::Cpu).reshape([-1]);
            Vec::<f32>::try_from(&flat).unwrap_or_default()
        };
        let what = "a sum on GPUs";
        let sum = on_device(&values(rank, count));
        let summed = collective.sum_tensor(&sum);
        summed.map_err(|source| Unfit::Failed { what, count, source })?;
        let all: Vec<Vec<f32>> = (0..ranks).map(|rank| values(rank, count)).collect();
        let expected =
            (0..count).map(|at| all.iter().map(|values| f64::from(values[at])).sum::<f64>());
        compare(what, &on_host(&sum), expected)?;
        // The same bits everywhere, also where the order of a sum matters.
        let torn = on_device(&rough(rank, count));
        let summed = collective.sum_tensor(&torn);
        summed.map_err(|source| Unfit::Failed { what, count, source })?;
        let own = on_host(&torn);
        let mut all = Vec::new();
        let told = collective.all_gather(&own, &mut all);
        told.map_err(|source| Unfit::Failed { what, count, source })?;
        let is_torn =
            |theirs: &[f32]| theirs.iter().zip(&own).any(|(a, b)| a.to_bits() != b.to_bits());
        if let Some(rank) = all.chunks_exact(count.max(1)).position(is_torn) {
            return Err(Unfit::Torn { count, rank });
        }
        let what = "a gather on GPUs";
        let gathered = collective.gather_tensors(&on_device(&values(rank, count)));
        let gathered = gathered.map_err(|source| Unfit::Failed { what, count, source })?;
        let expected = (0..ranks).flat_map(|rank| values(rank, count));
        compare(what, &on_host(&gathered), expected.map(f64::from))?;
    }
    Ok(())
}

fn compare(
    what: &'static str,
    found: &[f32],
    mut expected: impl Iterator<Item = f64>,
) -> Result<(), Unfit> {
    let count = found.len();
    for (at, &found) in found.iter().enumerate() {
        let expected = expected.next().unwrap_or(f64::NAN);
        // Exact: also a missing value is wrong.
        if f64::from(found) != expected {
            return Err(Unfit::Wrong { what, count, at, found, expected });
        }
    }
    let is_short = expected.next().is_some();
    if is_short {
        return Err(Unfit::Wrong { what, count, at: count, found: f32::NAN, expected: f64::NAN });
    }
    Ok(())
}
