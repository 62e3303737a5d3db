//! `clade-load`: measures what the orchestrator promises, and prints one line per mark.
//!
//! Judges nothing but speed: what is right is proved by the tests and by `tests/sim`.

mod decisions;
mod documents;
mod mark;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The scheduler alone: 10,000 workers, 1,000 models, every change of state encoded for the store
    Decisions(decisions::DecisionsArgs),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().bench {
        Bench::Decisions(args) => args.run(),
    }
}
