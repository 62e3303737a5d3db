//! `clade-worker check-gang`: whether the ranks of a gang exchange what they should, how fast, and what they do when
//! one of them dies or stands still.

use std::time::{Duration, Instant};

use anyhow::bail;
use clade_model::collective::{Collective, CollectiveError};
use clade_model::device::{self, DeviceChoice};
use clade_model::tch::{Device, Kind, Tensor};
use nix::sys::signal::{Signal, raise};
use serde::Serialize;

use super::bench::SeatArgs;
use super::say;
use crate::collective::conformance;

/// How long a rank may stand still: a person looks on, who would rather be told than wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same where standing still is what is looked at.
const SHORT: Duration = Duration::from_secs(6);
/// From a rank's end until all others have noticed, and from the end of their patience until they say so.
const NOTICE: Duration = Duration::from_secs(2);

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
    /// Let the last rank fail after some exchanges instead, and check that all others notice: `dies` kills it (its status
    /// is 137 then), `stalls` lets it stand still until they have ended
    #[arg(long)]
    pub fault: Option<Fault>,
}

/// What happens to the last rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    Dies,
    Stalls,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Noticed {
    fault: Fault,
    /// For how long the exchange that failed was waited for, and in which words it failed.
    seconds: f64,
    error: String,
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
    let stalls = args.fault == Some(Fault::Stalls);
    let (mut collective, exchange) =
        args.seat.gather(device, if stalls { SHORT } else { PATIENCE })?;
    let label = device::label(device);
    say(&Together { rank: args.seat.rank, ranks: args.seat.ranks, device: label, exchange })?;
    if let Some(fault) = args.fault {
        return fail(&mut *collective, device, fault);
    }
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

/// Lets the last rank fail after some sums; the others say how soon they have noticed.
fn fail(collective: &mut dyn Collective, device: Device, fault: Fault) -> anyhow::Result<()> {
    const SUMS: u32 = 5;
    let tensor = Tensor::ones([1 << 20], (Kind::Float, device));
    let mut values = vec![1.0; 1 << 20];
    let mut sum = |collective: &mut dyn Collective| {
        if collective.is_on_device() {
            collective.sum_tensor(&tensor)
        } else {
            collective.all_reduce_sum(&mut values)
        }
    };
    for _ in 0..SUMS {
        sum(collective)?;
    }
    if collective.rank() + 1 == collective.world_size() {
        match fault {
            Fault::Dies => raise(Signal::SIGKILL)?,
            // Its connections stay open all the while.
            Fault::Stalls => std::thread::sleep(2 * SHORT),
        }
        return Ok(());
    }
    let due = match fault {
        Fault::Dies => NOTICE,
        Fault::Stalls => SHORT + NOTICE,
    };
    let (error, took) = loop {
        let begun = Instant::now();
        if let Err(error) = sum(collective) {
            break (error, begun.elapsed());
        }
    };
    let is_told = match fault {
        Fault::Dies => matches!(error, CollectiveError::PeerLost { .. }),
        // Who has given up first is lost to the others.
        Fault::Stalls => {
            matches!(error, CollectiveError::Timeout { .. } | CollectiveError::PeerLost { .. })
        }
    };
    let noticed = Noticed { fault, seconds: took.as_secs_f64(), error: error.to_string() };
    say(&noticed)?;
    if !is_told {
        bail!("the last rank {fault:?}, and that was told as: {error}");
    }
    if took > due {
        bail!(
            "the last rank {fault:?}, and that was noticed after {took:?}: {due:?} are due at most"
        );
    }
    Ok(())
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
