//! What failures cost, and how long a queue of experts takes: measured on the real scheduler, over weeks of
//! modelled time, against floors that no scheduler could pass.
//!
//! The seeded worlds ask whether the scheduler is right; this asks whether it is good. Nothing but time is
//! modelled: [`Costs`] says which times, and every figure is printed with them.

mod breakage;
mod costs;
mod dump;
mod failures;
mod fleet;
mod gangs;
mod ledger;
mod makespan;
mod mark;
mod setup;
#[cfg(test)]
mod tests;
mod track;

use std::path::PathBuf;

use clap::Args;

pub use costs::Costs;

/// What to study, and with which seeds.
#[derive(Args, Clone, Debug)]
pub struct Study {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs of the 16 experts at each rate of failures; 0 leaves the failures out
    #[arg(long, default_value_t = 4)]
    repeats: u64,
    /// Queues of experts whose makespan is measured
    #[arg(long, default_value_t = 200)]
    traces: u64,
    /// Also play them with gangs that may have a quarter of their ranks
    #[arg(long)]
    elastic: bool,
    /// Write the queues that were played to this file, for `tests/sim/study/bound.py`
    #[arg(long)]
    dump: Option<PathBuf>,
    /// Of a hundred failures, so many take a node down
    #[arg(long, default_value_t = 20)]
    lost_percent: u64,
    /// Of a hundred failures, so many let a gang hang
    #[arg(long, default_value_t = 10)]
    hung_percent: u64,
    #[command(flatten)]
    costs: Costs,
}

/// Prints both studies, one mark a line.
///
/// # Errors
///
/// If the file for the queues cannot be written.
pub fn run(study: &Study) -> std::io::Result<()> {
    let Study { seed, repeats, traces, elastic, dump, lost_percent, hung_percent, costs } = study;
    let mut dump = dump::Dump::create(dump.as_deref())?;
    mark::say(format_args!("first seed {seed}; {costs:?}"));
    let mix = failures::Mix { lost_percent: *lost_percent, hung_percent: *hung_percent };
    failures::run(*seed, *repeats, mix, *costs);
    makespan::run(*seed, *traces, *costs, &mut dump)?;
    if *elastic {
        makespan::run_elastic(*seed, *traces, *costs, &mut dump)?;
    }
    Ok(())
}

/// Results of `of` for each of `seeds`, in their order; two at a time.
fn for_each<R: Send>(seeds: std::ops::Range<u64>, of: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let worker = || {
        let mut all = Vec::new();
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds.end {
                return all;
            }
            all.push((seed, of(seed)));
        }
    };
    let mut all: Vec<(u64, R)> = std::thread::scope(|scope| {
        let threads = [scope.spawn(worker), scope.spawn(worker)];
        threads.into_iter().flat_map(|it| it.join().expect("a study does not panic")).collect()
    });
    all.sort_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, result)| result).collect()
}
