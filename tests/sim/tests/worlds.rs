//! Two thousand worlds: chaos, then faults stop and every run must finish with every promise kept.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clade_sim::coverage::Coverage;
use clade_sim::{Outcome, play};

/// Worlds; `SIMULATIONS=100000` for a night.
fn worlds() -> u64 {
    std::env::var("SIMULATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// A smaller or quieter world proves nothing.
const WORKERS: usize = 8;
const MODELS: usize = 5;
const FAULTS: u32 = 50;

#[test]
fn after_any_chaos_every_run_finishes_with_every_promise_kept_and_everything_is_reached() {
    let (next, end) = (AtomicU64::new(0), worlds());
    let played: Mutex<(Coverage, Vec<Outcome>)> = Mutex::default();
    let play_some = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let outcome = play(seed, false);
            let mut played = played.lock().unwrap();
            played.0.add(&outcome.coverage);
            let faults: u32 = outcome.faults.values().sum();
            let is_small = outcome.workers < WORKERS || outcome.models < MODELS || faults < FAULTS;
            if !outcome.broken.is_empty() || is_small {
                played.1.push(outcome);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(play_some))));
    let (coverage, failed) = played.into_inner().unwrap();
    let told = failed.iter().map(|it| {
        let (seed, why) = (it.seed, it.broken.join("; "));
        let faults: u32 = it.faults.values().sum();
        let (workers, models) = (it.workers, it.models);
        format!("seed {seed}, {workers} workers, {models} models, {faults} faults: {why}\n  cargo run -p clade-sim -- --seed {seed} --verbose")
    });
    let told: Vec<String> = told.take(5).collect();
    assert!(failed.is_empty(), "{} of {end} worlds failed:\n{}", failed.len(), told.join("\n"));
    if end >= 2_000 {
        assert_eq!(coverage.missing(), Vec::<String>::new(), "never reached");
    }
}
