//! Plays with a whole cluster of real processes in a network of its own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clade_tests::arena::{Place, chaos, enter, etcd, marks};
use clade_tests::bucket::Bucket;
use clade_tests::toy;
use clap::{Args, Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(version, about)]
struct Arguments {
    /// Folder for everything; emptied first.
    #[arg(long, default_value = "target/arena")]
    folder: PathBuf,
    #[command(subcommand)]
    play: Play,
}

#[derive(Subcommand, Debug)]
enum Play {
    /// A run under faults must end as it does in peace
    Chaos(ChaosArguments),
    /// How long it takes to notice and to go on
    Marks {
        /// How often each is measured.
        #[arg(long, default_value_t = 5)]
        times: usize,
    },
}

#[derive(Args, Debug)]
struct ChaosArguments {
    /// Seed of the first round.
    #[arg(long, env = "CLADE_CHAOS_SEED", default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Seconds in which faults begin, of each round.
    #[arg(long, default_value_t = 60)]
    faults_for: u64,
    /// Steps of each expert; the seed takes a third of them.
    #[arg(long, default_value_t = 600)]
    steps: u32,
    /// Faults of each round at least.
    #[arg(long, default_value_t = 12)]
    least: usize,
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { folder, play } = Arguments::parse();
    if let Some(why) = toy::missing().or_else(Bucket::missing).or_else(etcd::missing) {
        eprintln!("skipped: {why}");
        return Ok(ExitCode::SUCCESS);
    }
    match enter()? {
        Place::Inside => (),
        Place::Ended(code) => return Ok(code),
        Place::Missing(why) => {
            eprintln!("skipped: {why}");
            return Ok(ExitCode::SUCCESS);
        }
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    match play {
        Play::Chaos(arguments) => play_chaos(&folder, &arguments)?,
        Play::Marks { times } => marks::measure(&folder, times)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn play_chaos(folder: &Path, arguments: &ChaosArguments) -> anyhow::Result<()> {
    let ChaosArguments { seed, rounds, faults_for, steps, least } = *arguments;
    let plan = chaos::Plan {
        seed,
        steps: (steps / 3, steps),
        faults_for: Duration::from_secs(faults_for),
        least,
    };
    chaos::undisturbed(folder, &plan)?;
    for seed in seed..seed + rounds {
        let told = chaos::play(
            folder,
            &folder.join(format!("round-{seed}")),
            &chaos::Plan { seed, ..plan },
        )?;
        eprintln!(
            "seed {seed}: {} faults in {:.0} s, failovers {:.1?}",
            told.faults,
            told.took.as_secs_f64(),
            told.failovers
        );
    }
    Ok(())
}
