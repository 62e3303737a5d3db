//! All children of one `clade up`: agents stop before the coordinator, and nothing is left.

use std::io;
use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::child::{Announce, ChildSpec, Wishes, supervise};
use super::orphans::{self, Kin};
use super::restart::End;

/// Why a child cannot be kept running.
#[derive(Debug, thiserror::Error)]
pub(super) enum GaveUp {
    #[error(
        "{name} cannot start: the library {library} is not found; `make setup` puts libtorch where \
         this build expects it, or set LIBTORCH to a libtorch 2.11 and build again"
    )]
    LibraryMissing { name: String, library: String },

    #[error("{name} {end} each time it was started{}; its log is {}", said(.words.as_deref()), .log.display())]
    FailsAtOnce { name: String, end: End, words: Option<String>, log: PathBuf },
}

fn said(words: Option<&str>) -> String {
    words.map_or_else(String::new, |words| format!(", and said: {words}"))
}

/// Which child stops when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Stops last: agents report to it as they leave.
    Coordinator,
    Agent,
}

pub(super) struct Fleet {
    announce: Announce,
    kin: Kin,
    agents: JoinSet<Option<GaveUp>>,
    coordinators: JoinSet<Option<GaveUp>>,
    burial: JoinSet<io::Result<()>>,
    stop_agents: CancellationToken,
    stop_coordinators: CancellationToken,
    kill: CancellationToken,
}

impl Fleet {
    /// An empty fleet; from now on this process adopts orphaned descendants.
    pub(super) fn new(announce: Announce) -> io::Result<Self> {
        orphans::adopt()?;
        let kin = Kin::default();
        let mut burial = JoinSet::new();
        burial.spawn(orphans::bury(kin.clone()));
        Ok(Self {
            announce,
            kin,
            agents: JoinSet::new(),
            coordinators: JoinSet::new(),
            burial,
            stop_agents: CancellationToken::new(),
            stop_coordinators: CancellationToken::new(),
            kill: CancellationToken::new(),
        })
    }

    /// Starts a child and keeps it running; what is returned always holds its process id.
    pub(super) fn start(&mut self, role: Role, spec: ChildSpec) -> watch::Receiver<Option<u32>> {
        let (pid, seen) = watch::channel(None);
        let (tasks, stop) = match role {
            Role::Coordinator => (&mut self.coordinators, &self.stop_coordinators),
            Role::Agent => (&mut self.agents, &self.stop_agents),
        };
        let wishes = Wishes { stop: stop.clone(), kill: self.kill.clone() };
        let announce = Announce::clone(&self.announce);
        tasks.spawn(supervise(spec, wishes, self.kin.clone(), announce, pid));
        seen
    }

    /// Waits until a child cannot be kept running. Cancel safe.
    pub(super) async fn gave_up(&mut self) -> GaveUp {
        loop {
            let ended = tokio::select! {
                Some(ended) = self.agents.join_next() => ended,
                Some(ended) = self.coordinators.join_next() => ended,
                else => return std::future::pending().await,
            };
            // A task that panicked is a fault of this program: let it be seen.
            if let Some(why) = ended.expect("supervising a child does not panic") {
                return why;
            }
        }
    }

    /// Stops everything in order and gently. Dropped half-way, [`Fleet::kill`] finishes it.
    pub(super) async fn stop(&mut self) {
        self.stop_agents.cancel();
        while self.agents.join_next().await.is_some() {}
        self.stop_coordinators.cancel();
        while self.coordinators.join_next().await.is_some() {}
        let at_once = self.kill.is_cancelled();
        orphans::clear(&self.kin, at_once).await;
        self.burial.abort_all();
    }

    /// Kills everything at once.
    pub(super) async fn kill(&mut self) {
        self.kill.cancel();
        self.stop_coordinators.cancel();
        self.stop().await;
    }
}
