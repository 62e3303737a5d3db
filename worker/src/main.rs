//! `clade-worker`: an agent that keeps ranks, or one rank by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clade_access::client::ConnectFlags;
use clade_core::spec::Count;
use clade_model::device::{self, DeviceChoice};
use clade_worker::{agent, by_hand, embed_classes, rank};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The worker of Clade: trains CLIP experts and does the jobs that prepare and judge them.
///
/// A coordinator orders, an agent keeps one process per rank, a rank does one work. For a first
/// look, `clade up -f run.yaml` starts all of it on this machine.
#[derive(Debug, Parser)]
#[command(name = "clade-worker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Joins a coordinator and offers slots for ranks.
    ///
    /// Given several addresses, it finds out by itself which coordinator leads, and anew whenever that
    /// changes. Ranks are child processes; they outlive the coordinators' absence but not this agent.
    /// SIGTERM or SIGINT lets them save and leave first; a second one kills them.
    Agent(Box<AgentArguments>),
    /// Does one work by hand, from the same job file that an agent gives its ranks.
    ///
    /// Needs no coordinator. Tells its progress on stderr and prints the outcome as JSON:
    ///
    ///     store: file:///data/clade        # where `clade apply` put the run
    ///     run: clipart
    ///     work: index.0                    # or embed.3, seed, expert-2, ...
    ///     incarnation: 1                   # higher than every one before it
    ///     ranks: 1                         # a gang: one file per rank, with
    ///     rank: 0                          # `rendezvous: 127.0.0.1:<port>` in each
    ///
    /// Exit status 0 if it is done or was stopped, 1 if it failed.
    #[command(verbatim_doc_comment)]
    Run {
        /// The job file.
        job: PathBuf,
        /// Where to put a folder for temporary files [default: the system's].
        #[arg(long, value_name = "DIR")]
        scratch: Option<PathBuf>,
        /// Threads the rank computes with.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Where models compute: `auto`, `cpu`, `cuda` or `cuda:N`.
        #[arg(long, default_value = "auto")]
        device: DeviceChoice,
        #[command(flatten)]
        cache: CacheArguments,
    },
    Encode(Box<by_hand::EncodeArgs>),
    Train(Box<by_hand::TrainArgs>),
    NewModel(by_hand::NewModelArgs),
    /// Lists what this machine can compute on, one JSON line each.
    ///
    /// The CPU's line says why there is no GPU, if there is none.
    Devices,
    Bench(by_hand::BenchArgs),
    BenchData(by_hand::BenchDataArgs),
    CheckGang(by_hand::CheckGangArgs),
    /// Embeds class names and prompts for a bundle's `route.py`.
    EmbedClasses(embed_classes::EmbedClassesArgs),
    /// One rank, as an agent starts it: speaks on stdin and stdout.
    #[command(hide = true)]
    Rank {
        job: PathBuf,
        #[arg(long)]
        scratch: PathBuf,
        #[arg(long, default_value_t = 1)]
        threads: usize,
        #[arg(long, default_value = "auto")]
        device: DeviceChoice,
        #[arg(long, default_value_t = 0)]
        slot: u32,
        #[command(flatten)]
        cache: CacheArguments,
    },
}

/// Where tars of an object store are kept on this machine.
#[derive(Debug, clap::Args)]
struct CacheArguments {
    /// Folder for copies of tars that lie in an object store; several agents may share it
    /// [default: for an agent, `cache` in its own folder; by hand, none].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Bytes it may hold; what was used longest ago goes first.
    #[arg(long, value_name = "SIZE", default_value = "50G")]
    cache_size: Count,
}

impl CacheArguments {
    fn choice(self) -> Option<rank::CacheChoice> {
        let Self { cache, cache_size } = self;
        cache.map(|folder| rank::CacheChoice { folder, bytes: cache_size.0 })
    }
}

#[derive(Debug, clap::Args)]
struct AgentArguments {
    #[command(flatten)]
    connection: ConnectFlags,
    /// Name of this worker; each start adds its own suffix [default: the host's name].
    #[arg(long)]
    name: Option<String>,
    /// Name of the machine, the same after every restart: `clade cordon` and `clade drain` go by it
    /// [default: --name].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Part of the network within which links are fast, such as a rack; a gang keeps to one if it can
    /// [default: the host's name].
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Marks the machine for placement; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Address at which ranks on other machines reach those here, for gangs that span machines
    /// [default: the one from which this machine reaches the coordinator].
    #[arg(long, value_name = "IP", env = "CLADE_GANG_ADDRESS")]
    gang_address: Option<std::net::IpAddr>,
    /// How many ranks it holds at a time: a number, or `auto` for one per GPU, and one if there is none.
    #[arg(long, value_name = "N", default_value = "auto")]
    slots: agent::SlotCount,
    /// Folder of its locks, logs and fences. Another agent needs another one.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Threads each rank computes with.
    #[arg(long, default_value_t = 1)]
    threads_per_rank: u32,
    /// Where ranks compute: `auto` (each slot is pinned to a GPU of its own while there are enough;
    /// without one, the CPU), `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// File of lines `SLOT REASON`: these devices are taken for broken, for drills.
    #[arg(long, value_name = "FILE", hide = true)]
    device_faults: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArguments,
    /// Leave when stdin ends: for a supervisor that must not leave orphans.
    #[arg(long)]
    exit_with_stdin: bool,
    /// Kill a rank that has done no unit of work for this long.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    stall_after: Duration,
    /// Kill a rank that has given no sign of life for this long.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    silent_after: Duration,
}

fn main() -> ExitCode {
    clade_access::install_crypto();
    device::tune_process();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let Arguments { command } = Arguments::parse();
    match command {
        Command::Agent(arguments) => run_agent(*arguments),
        Command::Run { job, scratch, threads, device, cache } => {
            // A folder of its own: it is emptied before and after.
            let scratch = scratch
                .unwrap_or_else(std::env::temp_dir)
                .join(format!("clade-rank-{}", std::process::id()));
            let cache = cache.choice();
            let place = rank::Place { scratch, threads, device, slot: 0, cache };
            let outcome = rank::by_hand(&job, place);
            print_outcome(&outcome);
            rank::exit_code(&outcome)
        }
        Command::EmbedClasses(arguments) => report(embed_classes::run(&arguments)),
        Command::Encode(arguments) => report(by_hand::encode(&arguments)),
        Command::Train(arguments) => match by_hand::train(&arguments) {
            Ok(status) => status,
            Err(error) => report(Err(error)),
        },
        Command::NewModel(arguments) => report(by_hand::new_model(&arguments)),
        Command::Devices => report(by_hand::devices()),
        Command::Bench(arguments) => report(by_hand::bench(&arguments)),
        Command::BenchData(arguments) => report(by_hand::bench_data(&arguments)),
        Command::CheckGang(arguments) => report(by_hand::check_gang(&arguments)),
        Command::Rank { job, scratch, threads, device, slot, cache } => {
            let cache = cache.choice();
            rank::serve(&job, rank::Place { scratch, threads, device, slot, cache })
        }
    }
}

#[expect(clippy::print_stdout, reason = "what a person asked for")]
fn print_outcome(outcome: &clade_core::job::Outcome) {
    println!("{}", serde_json::to_string(outcome).expect("keys are strings"));
}

fn run_agent(arguments: AgentArguments) -> ExitCode {
    let AgentArguments {
        connection,
        name,
        node,
        domain,
        gang_address,
        labels,
        slots,
        state,
        threads_per_rank,
        device,
        device_faults,
        cache,
        exit_with_stdin,
        stall_after,
        silent_after,
    } = arguments;
    let name = name.unwrap_or_else(agent::host_name);
    let labels: BTreeMap<String, String> = labels.into_iter().collect();
    let CacheArguments { cache, cache_size } = cache;
    let cache = rank::CacheChoice {
        folder: cache.unwrap_or_else(|| state.join("cache")),
        bytes: cache_size.0,
    };
    let options = agent::Options {
        connection,
        node: node.unwrap_or_else(|| name.clone()),
        domain: domain.unwrap_or_else(agent::host_name),
        gang_address,
        name,
        labels,
        slots,
        state,
        threads_per_rank,
        device: device.to_string(),
        device_faults,
        cache,
        exit_with_stdin,
        stall_after,
        silent_after,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start a runtime");
    report(runtime.and_then(|runtime| {
        let ended = runtime.block_on(agent::run(options));
        // A driver that never answers must not keep the agent.
        runtime.shutdown_background();
        ended
    }))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE, such as zone=a".to_owned()),
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
