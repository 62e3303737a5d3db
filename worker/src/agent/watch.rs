//! Watches one rank from start to end, and tells the agent what becomes of it.
//!
//! The end is told only after the process was reaped and its GPU has let go of its memory: its slot
//! is free then.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use clade_core::job::{Failure, Outcome};
use clade_core::rendezvous::Rendezvous;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::child::{self, RankKey, Settings, Started};
use super::devices;
use super::exit::{self, Killed};
use super::logs;
use crate::pipe::{self, FromRank, ToRank};

/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// For a rank that does not go on to tell where it stands, before it is killed.
const WHERE_PATIENCE: Duration = Duration::from_secs(3);
/// Between a rank's last word and its exit.
const EXIT_GRACE: Duration = Duration::from_secs(10);
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
const WRITE_PATIENCE: Duration = Duration::from_secs(1);
/// For a GPU to let go of a dead rank's memory.
const MEMORY_PATIENCE: Duration = Duration::from_secs(30);

/// What the agent hears of a rank.
#[derive(Debug)]
pub(super) struct RankEvent {
    pub(super) key: RankKey,
    pub(super) news: News,
}

#[derive(Debug)]
pub(super) enum News {
    Said(FromRank),
    /// The device still has the rank's memory. Told before its exit.
    Undrained {
        slot: u32,
        reason: String,
    },
    Exited(Outcome),
}

/// What the agent asks of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Rendezvous(Rendezvous),
    /// Leave, after saving.
    Save,
    /// Tell where it stands, then die: it does not go on.
    Tell,
    /// Die at once.
    Kill,
}

/// What happens next if nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Stalled,
    Terminate,
    Kill,
}

struct Watch {
    key: RankKey,
    pid: Pid,
    settings: Arc<Settings>,
    grace: Duration,
    stdin: Option<ChildStdin>,
    events: mpsc::Sender<RankEvent>,
    heard_at: Instant,
    worked_at: Instant,
    units: u64,
    outcome: Option<Outcome>,
    killed: Option<Killed>,
    /// The next step of ending the rank, once that has begun.
    ending: Option<(Due, Instant)>,
}

/// Follows a started rank until it is gone.
pub(super) async fn watch(
    key: RankKey,
    slot: u32,
    started: Started,
    grace: Duration,
    settings: Arc<Settings>,
    mut wishes: mpsc::Receiver<Wish>,
    events: mpsc::Sender<RankEvent>,
) {
    let Started { mut child, pid, job_file, scratch, log, log_key, store } = started;
    let now = Instant::now();
    let mut watch = Watch {
        key,
        pid: Pid::from_raw(i32::try_from(pid).expect("a process id fits in 31 bits")),
        settings,
        grace,
        stdin: child.stdin.take(),
        events,
        heard_at: now,
        worked_at: now,
        units: 0,
        outcome: None,
        killed: None,
        ending: None,
    };
    let ended = CancellationToken::new();
    let follower = tokio::spawn(logs::follow(log.clone(), store, log_key, ended.clone()));
    let mut lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            line = next_line(&mut lines) => watch.said(&line).await,
            Some(wish) = wishes.recv() => watch.wished(wish).await,
            () = sleep_until(watch.due().1) => watch.overdue(),
        }
    };
    // What it said last may still be on its way.
    while let Ok(Some(line)) = timeout(DRAIN_PATIENCE, drained_line(&mut lines)).await {
        watch.said(&line).await;
    }
    let outcome = watch.judge(status, &log);
    child::clean(&job_file, &scratch);
    if let Some(health) = watch.settings.devices.health()
        && let Err(reason) = devices::drained(&health, slot, pid, MEMORY_PATIENCE).await
    {
        watch.tell(News::Undrained { slot, reason }).await;
    }
    watch.tell(News::Exited(outcome)).await;
    // Peers wait for that word, and a slow store must not keep it; the log's last lines may come later.
    ended.cancel();
    if let Err(error) = follower.await {
        tracing::error!(%error, "the copying of a log failed");
    }
}

impl Watch {
    async fn tell(&self, news: News) {
        let event = RankEvent { key: self.key.clone(), news };
        // An agent that no longer listens is ending, and this rank with it.
        let _: Result<_, _> = self.events.send(event).await;
    }

    async fn said(&mut self, line: &str) {
        self.heard_at = Instant::now();
        match serde_json::from_str(line) {
            Ok(FromRank::Alive { units }) => {
                if units != self.units {
                    self.units = units;
                    self.worked_at = self.heard_at;
                }
            }
            Ok(FromRank::Outcome(outcome)) => {
                self.outcome = Some(outcome);
                self.ending = Some((Due::Kill, self.heard_at + EXIT_GRACE));
            }
            Ok(
                message @ (FromRank::Rendezvous(_)
                | FromRank::Checkpoint { .. }
                | FromRank::Progress { .. }),
            ) => self.tell(News::Said(message)).await,
            Err(error) => {
                let RankKey { fence, rank } = &self.key;
                // The line may hold the gang's secret.
                let bytes = line.len();
                tracing::warn!(%fence, rank, %error, bytes, "a rank said what nobody understands");
            }
        }
    }

    async fn wished(&mut self, wish: Wish) {
        match wish {
            Wish::Rendezvous(address) => self.write(&ToRank::Rendezvous(address)).await,
            Wish::Save => {
                if self.ending.is_none() {
                    self.killed = Some(Killed::Stopped);
                    self.ending = Some((Due::Terminate, Instant::now() + self.grace));
                    self.write(&ToRank::Stop { save: true }).await;
                }
            }
            Wish::Tell => {
                self.killed = Some(Killed::Stopped);
                self.ask_where();
            }
            Wish::Kill => {
                self.killed = Some(Killed::Stopped);
                self.signal(Signal::SIGKILL);
            }
        }
    }

    async fn write(&mut self, message: &ToRank) {
        if let Some(stdin) = &mut self.stdin {
            let line = pipe::line(message);
            // A rank that does not read is ended by the deadline that follows.
            let _: Result<_, _> = timeout(WRITE_PATIENCE, stdin.write_all(line.as_bytes())).await;
        }
    }

    fn due(&self) -> (Due, Instant) {
        let silent = self.heard_at + self.settings.silent_after;
        let stalled = self.worked_at + self.settings.stall_after;
        self.ending.unwrap_or((Due::Stalled, silent.min(stalled)))
    }

    fn overdue(&mut self) {
        let RankKey { fence, rank } = &self.key;
        match self.due().0 {
            Due::Stalled => {
                let silent = self.heard_at.elapsed().max(self.worked_at.elapsed());
                tracing::warn!(%fence, rank, ?silent, "a rank has stalled: it is asked where it stands, and killed");
                self.killed = Some(Killed::Stalled(silent));
                self.ask_where();
            }
            Due::Terminate => {
                tracing::warn!(%fence, rank, "a rank did not leave in time");
                self.signal(Signal::SIGTERM);
                self.ending = Some((Due::Kill, Instant::now() + TERM_GRACE));
            }
            Due::Kill => self.end_with(Signal::SIGKILL),
        }
    }

    /// Asks the rank itself, not its group, for its stacks, and kills it a little later: all ranks of its gang at
    /// about the same time, since each that goes ends the others before they have told.
    fn ask_where(&mut self) {
        if let Err(error) = kill(self.pid, Signal::SIGUSR1) {
            tracing::debug!(%error, pid = %self.pid, "a rank cannot be asked where it stands");
        }
        self.ending = Some((Due::Kill, Instant::now() + WHERE_PATIENCE));
    }

    fn end_with(&mut self, signal: Signal) {
        self.signal(signal);
        self.ending = Some((Due::Kill, Instant::now() + EXIT_GRACE));
    }

    fn signal(&self, signal: Signal) {
        // The rank has not been reaped yet, so its group is still its own.
        if let Err(error) = killpg(self.pid, signal) {
            tracing::debug!(%error, pid = %self.pid, "a rank cannot be signalled");
        }
    }

    fn judge(&mut self, status: std::io::Result<ExitStatus>, log: &std::path::Path) -> Outcome {
        let rank = self.key.rank;
        match status {
            Ok(status) => exit::classify(rank, self.outcome.take(), status, self.killed, log),
            Err(error) => Outcome::Failed(Failure::Crashed {
                rank,
                message: format!("its end could not be learned: {error}"),
            }),
        }
    }
}

type Said = Option<Lines<BufReader<ChildStdout>>>;

/// The next line; never, once there is none.
async fn next_line(lines: &mut Said) -> String {
    match drained_line(lines).await {
        Some(line) => line,
        None => {
            *lines = None;
            std::future::pending().await
        }
    }
}

async fn drained_line(lines: &mut Said) -> Option<String> {
    lines.as_mut()?.next_line().await.ok().flatten()
}
