//! `clade-worker check-gang`: whether the ranks of a gang exchange what they should, and how fast.

use std::time::Instant;

use clade_model::collective::Collective;
use clade_model::device::{self, DeviceChoice};
use clade_model::tch::{Device, Kind, Tensor};
use serde::Serialize;

use super::bench::SeatArgs;
use super::say;
use crate::collective::conformance;

/// Checks that the ranks of a gang exchange what they should, and measures how fast.
///
/// Start it once for each rank, at the same time and with the same --meet. On GPUs tensors go by NCCL if every
/// rank finds it; two ranks on one GPU need NCCL 2.30 and NCCL_MULTI_RANK_GPU_ENABLE=1.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckGangArgs {
    #[command(flatten)]
    pub seat: SeatArgs,
    /// `auto` (a GPU if one works, else the CPU), `cpu`, `cuda` or `cuda:N`
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Size of the sums that are timed
    #[arg(long, default_value_t = 256)]
    pub mebibytes: u32,
    /// How often they are made
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Together {
    rank: u32,
    ranks: u32,
    device: String,
    exchange: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    /// Buffers of so many numbers, of any kind of exchange.
    checked: Vec<usize>,
    /// Whether tensors on GPUs were among them.
    on_device: bool,
    /// Bytes of one sum, the median seconds of one, and what that is per second in each direction of a link:
    /// 2 (W - 1) / W of the bytes.
    bytes: u64,
    seconds: f64,
    gigabytes_per_second: f64,
}

/// Carries out `clade-worker check-gang`.
pub fn run(args: &CheckGangArgs) -> anyhow::Result<()> {
    args.seat.check()?;
    let device = args.device.prepare()?;
    let (mut collective, exchange) = args.seat.gather(device)?;
    let label = device::label(device);
    say(&Together { rank: args.seat.rank, ranks: args.seat.ranks, device: label, exchange })?;
    let checked = conformance::COUNTS.to_vec();
    conformance::check(&mut *collective, &checked)?;
    let on_device = collective.is_on_device();
    if on_device {
        conformance::check_on_device(&mut *collective, device, &checked)?;
    }
    let bytes = u64::from(args.mebibytes) << 20;
    let mut took = time(&mut *collective, device, bytes, args.rounds)?;
    took.sort_by(f64::total_cmp);
    let seconds = took[took.len() / 2];
    let ranks = f64::from(args.seat.ranks);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let moved = bytes as f64 * 2.0 * (ranks - 1.0) / ranks;
    let gigabytes_per_second = moved / seconds / 1e9;
    say(&Found { checked, on_device, bytes, seconds, gigabytes_per_second })
}

/// The seconds of each of so many sums, after one to warm up.
fn time(
    collective: &mut dyn Collective,
    device: Device,
    bytes: u64,
    rounds: u32,
) -> anyhow::Result<Vec<f64>> {
    let count = usize::try_from(bytes / 4)?;
    let tensor = Tensor::zeros([i64::try_from(count)?], (Kind::Float, device));
    let mut values = if collective.is_on_device() { Vec::new() } else { vec![0.0; count] };
    let mut took = Vec::new();
    for round in 0..=rounds {
        collective.barrier()?;
        let begun = Instant::now();
        if collective.is_on_device() {
            collective.sum_tensor(&tensor)?;
            device::synchronize(device);
        } else {
            collective.all_reduce_sum(&mut values)?;
        }
        if round > 0 {
            took.push(begun.elapsed().as_secs_f64());
        }
    }
    Ok(took)
}
