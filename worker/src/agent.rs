//! The agent: offers slots, keeps one child process per rank, and reports to the coordinator.
//!
//! It decides nothing. It starts and stops ranks as ordered, refuses orders of deposed leaders and
//! superseded gangs, and restarts nothing by itself. While the coordinator is away the ranks go
//! on; reports that matter are kept and repeated until acknowledged. A slot is reported free only
//! once its rank's process is gone. One task owns all of this; it never calls libtorch.

mod child;
mod devices;
mod exit;
mod fences;
mod identity;
mod logs;
mod orders;
mod outbox;
mod pace;
mod reach;
mod refusals;
mod session;
mod slots;
mod state;
mod watch;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clade_access::client::{Cluster, ConnectFlags};
use clade_core::order::Random;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::rank::CacheChoice;
use child::Settings;
use devices::Devices;
pub use devices::SlotCount;
use fences::Fences;
pub use identity::host_name;
use identity::{Abode, Identity};
use slots::Slots;
use state::Agent;

const RANK_EVENTS: usize = 1024;
const SESSION_EVENTS: usize = 64;
const DEVICE_EVENTS: usize = 8;

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's coordinators, and how this worker says who it is.
    pub connection: ConnectFlags,
    pub name: String,
    /// The machine: survives restarts of the agent.
    pub node: String,
    /// Part of the topology within which links are fast.
    pub domain: String,
    pub labels: BTreeMap<String, String>,
    /// Where ranks elsewhere reach those here; by default, from where the coordinator is reached.
    pub gang_address: Option<IpAddr>,
    pub slots: SlotCount,
    /// Folder of its locks, logs and fences.
    pub state: PathBuf,
    pub threads_per_rank: u32,
    /// `auto`, `cpu` or `cuda:N`, for the ranks.
    pub device: String,
    /// File of devices that are said to be broken, for drills.
    pub device_faults: Option<PathBuf>,
    /// Where ranks keep tars of an object store.
    pub cache: CacheChoice,
    /// Leave when stdin ends: whoever supervises this agent is gone.
    pub exit_with_stdin: bool,
    pub stall_after: Duration,
    pub silent_after: Duration,
}

/// Serves until told to leave, and until all of its ranks have left.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let cluster = Cluster::from_flags(&options.connection)?;
    let state = &options.state;
    fs::create_dir_all(state).with_context(|| format!("cannot create {}", state.display()))?;
    let state = &state.canonicalize()?;
    let _alone = lock_folder(state).await?;
    let fences_file = state.join("fences.json");
    let fences = Fences::open(fences_file.clone())
        .with_context(|| format!("cannot read {}", fences_file.display()))?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let devices =
        Devices::find(&options.device, options.slots, &program, options.device_faults).await;
    let slots = Slots::open(&state.join("slots"), devices.slots())
        .with_context(|| format!("cannot create slots in {}", state.display()))?;
    slots.wait_until_free().await.context("cannot look at the slots")?;

    let abode = Abode {
        name: options.name,
        node: options.node,
        domain: options.domain,
        labels: options.labels,
    };
    let identity = Identity::new(abode).context("cannot draw a worker's id")?;
    let settings = Arc::new(Settings {
        program,
        state: state.clone(),
        threads_per_rank: options.threads_per_rank,
        devices,
        cache: options.cache,
        gang_address: options.gang_address,
        stall_after: options.stall_after,
        silent_after: options.silent_after,
    });
    let (rank_events, ranks) = mpsc::channel(RANK_EVENTS);
    let withdrawn = devices::ill_at_start(settings.devices.health()).await;
    let agent = Agent::new(identity, fences, slots, settings, withdrawn, rank_events);
    let stdin_ends = if options.exit_with_stdin { Some(stdin_end()) } else { None };
    serve(agent, cluster, ranks, stdin_ends).await
}

async fn serve(
    mut agent: Agent,
    cluster: Cluster,
    mut ranks: mpsc::Receiver<watch::RankEvent>,
    stdin_ends: Option<mpsc::Receiver<()>>,
) -> anyhow::Result<()> {
    let (events, mut session) = mpsc::channel(SESSION_EVENTS);
    let end = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let random = Random::new(random_seed());
    tasks.spawn(session::keep(cluster, events, random, end.clone()));
    let (found, mut faults) = mpsc::channel(DEVICE_EVENTS);
    if let Some(health) = agent.settings.devices.health() {
        tasks.spawn(devices::poll(health, found, end.clone()));
    }
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut stdin_ends = stdin_ends;
    let mut period = agent.heartbeat_period();
    let mut heartbeat = interval(period);
    while !agent.is_finished() {
        if agent.heartbeat_period() != period {
            period = agent.heartbeat_period();
            heartbeat = interval(period);
            heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        tokio::select! {
            Some(event) = session.recv() => agent.session(event),
            Some(event) = ranks.recv() => agent.rank(event),
            Some(faults) = faults.recv() => agent.devices(faults),
            _ = heartbeat.tick() => agent.heartbeat(),
            _ = terminated.recv() => agent.leave("SIGTERM"),
            _ = interrupted.recv() => agent.leave("SIGINT"),
            () = ended(&mut stdin_ends) => agent.leave("end of stdin"),
            () = sleep_until(agent.patience_ends()) => agent.patience_ended(),
        }
    }
    end.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the agent failed")?;
    }
    agent.join_watches().await;
    match agent.verdict {
        Some(why) => bail!(why),
        None => Ok(()),
    }
}

/// How long a former agent in the same folder may take to leave: its ranks save first.
const FORMER_AGENT: Duration = Duration::from_secs(60);

/// Two agents in one folder would fight over its slots; one whose supervisor died is waited for.
async fn lock_folder(state: &Path) -> anyhow::Result<File> {
    let path = state.join("agent.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let start = std::time::Instant::now();
    let mut was_told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < FORMER_AGENT => {
                if !was_told {
                    tracing::info!(state = %state.display(), "waits for another agent to leave");
                    was_told = true;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(TryLockError::WouldBlock) => bail!(
                "another agent uses {}: stop it, or give this one another --state",
                state.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// Different in every process: the standard library's hash seeds come from the system. For jitter
/// only; what must not be guessed is drawn elsewhere.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Hears when stdin ends. A thread of its own: reading stdin cannot be cancelled.
fn stdin_end() -> mpsc::Receiver<()> {
    let (tell, hear) = mpsc::channel(1);
    std::thread::spawn(move || {
        let _: Result<_, _> = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _: Result<_, _> = tell.blocking_send(());
    });
    hear
}

/// Once only: an ended stdin says nothing more.
async fn ended(stdin: &mut Option<mpsc::Receiver<()>>) {
    match stdin {
        Some(end) => {
            end.recv().await;
            *stdin = None;
        }
        None => std::future::pending().await,
    }
}
