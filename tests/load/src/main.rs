//! `clade-load`: measures what the orchestrator promises, and prints one line per mark.
//!
//! Judges nothing but speed: what is right is proved by the tests and by `tests/sim`.

mod client;
mod connected;
mod decisions;
mod documents;
mod gang;
mod mark;

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

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
    /// One coordinator on one core with thousands of connected workers
    Connected(connected::ConnectedArgs),
    /// A gang of two ranks beside one rank with two threads
    Gang(gang::GangArgs),
    /// Trains with and without checkpoints, by turns.
    Checkpoints(gang::CheckpointArgs),
    /// Some of these workers; started by `connected`
    #[command(hide = true)]
    Client(client::ClientArgs),
}

fn main() -> anyhow::Result<()> {
    // The processes of clients inherit it: each worker holds a socket.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    match Args::parse().bench {
        Bench::Decisions(args) => args.run(),
        Bench::Connected(args) => args.run(),
        Bench::Gang(args) => args.run(),
        Bench::Checkpoints(args) => args.run(),
        Bench::Client(args) => args.run(),
    }
}
