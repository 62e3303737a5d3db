//! The agent: offers slots, keeps one child process per rank, and reports to the coordinator.
//!
//! It decides nothing. It starts and stops ranks as ordered, refuses orders of deposed leaders and
//! superseded gangs, and restarts nothing by itself. While the coordinator is away the ranks go
//! on; reports that matter are kept and repeated until acknowledged. A slot is reported free only
//! once its rank's process is gone. One task owns all of this; it never calls libtorch.

mod child;
mod exit;
mod fences;
mod logs;
mod orders;
mod outbox;
mod session;
mod slots;
mod state;
mod watch;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clade_core::order::Random;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::rank::CacheChoice;
use child::Settings;
use fences::Fences;
use slots::Slots;
use state::Agent;

const RANK_EVENTS: usize = 1024;
const SESSION_EVENTS: usize = 64;

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://address:port`.
    pub coordinator: String,
    pub name: String,
    pub slots: u32,
    /// Folder of its locks, logs and fences.
    pub state: PathBuf,
    pub threads_per_rank: u32,
    /// `auto`, `cpu` or `cuda:N`, for the ranks.
    pub device: String,
    /// Where ranks keep tars of an object store.
    pub cache: CacheChoice,
    /// Leave when stdin ends: whoever supervises this agent is gone.
    pub exit_with_stdin: bool,
    pub stall_after: Duration,
    pub silent_after: Duration,
}

/// Serves until told to leave, and until all of its ranks have left.
pub async fn run(options: Options) -> anyhow::Result<()> {
    if options.slots == 0 {
        bail!("--slots must be at least 1");
    }
    let state = &options.state;
    fs::create_dir_all(state).with_context(|| format!("cannot create {}", state.display()))?;
    let state = &state.canonicalize()?;
    let _alone = lock_folder(state).await?;
    let fences_file = state.join("fences.json");
    let fences = Fences::open(fences_file.clone())
        .with_context(|| format!("cannot read {}", fences_file.display()))?;
    let slots = Slots::open(&state.join("slots"), options.slots)
        .with_context(|| format!("cannot create slots in {}", state.display()))?;
    slots.wait_until_free().await.context("cannot look at the slots")?;

    let endpoint = Endpoint::from_shared(options.coordinator.clone())
        .with_context(|| format!("`{}` is not an address", options.coordinator))?;
    let settings = Arc::new(Settings {
        program: std::env::current_exe().context("cannot tell which program this is")?,
        state: state.clone(),
        threads_per_rank: options.threads_per_rank,
        device: options.device.clone(),
        cache: options.cache.clone(),
        stall_after: options.stall_after,
        silent_after: options.silent_after,
    });
    let (rank_events, ranks) = mpsc::channel(RANK_EVENTS);
    let agent = Agent::new(options.name, random_seed(), fences, slots, settings, rank_events);
    let stdin_ends = if options.exit_with_stdin { Some(stdin_end()) } else { None };
    serve(agent, endpoint, ranks, stdin_ends).await
}

async fn serve(
    mut agent: Agent,
    endpoint: Endpoint,
    mut ranks: mpsc::Receiver<watch::RankEvent>,
    stdin_ends: Option<mpsc::Receiver<()>>,
) -> anyhow::Result<()> {
    let (events, mut session) = mpsc::channel(SESSION_EVENTS);
    let end = CancellationToken::new();
    let random = Random::new(random_seed());
    let keeping = tokio::spawn(session::keep(endpoint, events, random, end.clone()));
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
            _ = heartbeat.tick() => agent.heartbeat(),
            _ = terminated.recv() => agent.leave("SIGTERM"),
            _ = interrupted.recv() => agent.leave("SIGINT"),
            () = ended(&mut stdin_ends) => agent.leave("end of stdin"),
            () = sleep_until(agent.patience_ends()) => agent.patience_ended(),
        }
    }
    end.cancel();
    keeping.await.context("the session's task failed")?;
    agent.join_watches().await;
    Ok(())
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

/// Different in every process: the standard library's hash seeds come from the system.
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
