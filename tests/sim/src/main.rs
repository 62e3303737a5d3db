//! Plays worlds from a command line: one with its trace, or many with what they reached.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clade_sim::coverage::Coverage;
use clade_sim::study::{self, Study};
use clade_sim::{Outcome, play};
use clap::Parser;

/// Plays seeded worlds around the scheduler.
#[derive(Parser)]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// So many seeds, until the first that fails.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print everything that happens.
    #[arg(long)]
    verbose: bool,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[command(subcommand)]
    instead: Option<Instead>,
}

/// What to do instead of playing worlds.
#[derive(clap::Subcommand)]
enum Instead {
    /// Measure what failures cost, and how long queues of experts take
    Study(Study),
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(Instead::Study(study)) = &options.instead {
        return match study::run(study) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("the file of traces cannot be written: {error}");
                ExitCode::FAILURE
            }
        };
    }
    std::panic::set_hook(Box::new(|_| ()));
    let begun = std::time::Instant::now();
    let next = AtomicU64::new(options.seed);
    let end = options.seed + options.seeds;
    let worker = || {
        let mut all: Vec<Outcome> = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return all;
            }
            let outcome = play(seed, options.verbose);
            if !outcome.broken.is_empty() && !options.keep_going {
                next.store(end, Ordering::Relaxed);
            }
            all.push(outcome);
        }
    };
    let mut all: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1)).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().flat_map(|it| it.join().expect("a world's panic is caught")).collect()
    });
    all.sort_by_key(|it| it.seed);
    let (mut coverage, mut failed, mut events, mut faults) = (Coverage::default(), 0, 0, 0);
    for it in &all {
        coverage.add(&it.coverage);
        events += it.events;
        faults += it.faults.values().sum::<u32>();
        it.trace.iter().for_each(|line| println!("{line}"));
        if !it.broken.is_empty() {
            failed += 1;
            println!("seed {} ({:?}): {}", it.seed, it.kind, it.broken.join("\n    "));
            println!("    replay: cargo run -p clade-sim -- --seed {} --verbose", it.seed);
        }
    }
    if options.seeds > 1 {
        for (kind, name, count) in coverage.seen() {
            println!("{kind:>10} {name:<22} {count}");
        }
        println!("never reached: {:?}", coverage.missing());
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} worlds, {failed} failed, {events} events, {faults} faults, {seconds:.1} s",
        all.len()
    );
    ExitCode::from(u8::from(failed > 0))
}
