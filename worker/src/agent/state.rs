//! What an agent knows, and what it does when something happens. Never waits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use clade_core::ids::{Fence, WorkerId};
use clade_core::job::Outcome;
use clade_proto::v1::session_request::Report;
use clade_proto::v1::{
    CheckpointWritten, DeviceWithdrawn, Goodbye, Heartbeat, Hello, LiveRank, Progress, RankExited,
    RendezvousPosted, SessionRequest,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::child::{RankKey, Settings};
use super::fences::Fences;
use super::identity::Identity;
use super::outbox::Outbox;
use super::refusals::Refusals;
use super::session::{SessionEvent, Stream};
use super::slots::Slots;
use super::watch::{News, RankEvent, Wish};
use crate::pipe::FromRank;

/// Until the coordinator says how often.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(1);
const WELCOME_PATIENCE: Duration = Duration::from_secs(10);
/// For the last reports to be acknowledged, and then for the goodbye to get through.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(3);
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

/// A rank that is alive.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) slot: u32,
    pub(super) pid: u32,
    pub(super) wishes: mpsc::Sender<Wish>,
}

/// A rank that was here and is gone, or that is not to be started any more.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    pub(super) slot: u32,
    pub(super) outcome: Outcome,
}

/// What the agent is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// This worker was declared lost: its ranks die, then it joins as another.
    Superseded,
    /// Told to leave: its ranks are saving.
    Leaving,
    /// All ranks are gone; the last reports wait for their acknowledgement.
    Reporting {
        until: Instant,
    },
    /// Goodbye is on its way.
    Parting {
        until: Instant,
    },
    Finished,
}

/// The connection, as far as it has got.
#[derive(Debug)]
pub(super) enum Link {
    Down,
    /// Hello is said.
    Greeting {
        stream: Stream,
        until: Instant,
    },
    Up(Stream),
}

#[derive(Debug)]
pub(super) struct Agent {
    identity: Identity,
    pub(super) fences: Fences,
    pub(super) slots: Slots,
    pub(super) settings: Arc<Settings>,
    pub(super) rank_events: mpsc::Sender<RankEvent>,
    pub(super) watches: JoinSet<()>,
    pub(super) live: BTreeMap<RankKey, Live>,
    /// The ended ranks of each work's newest incarnation, so that a repeated order is answered.
    pub(super) gone: BTreeMap<RankKey, Gone>,
    /// Slots whose devices must not be used, and why. Only a new agent takes them up again.
    pub(super) withdrawn: BTreeMap<u32, String>,
    pub(super) refusals: Refusals,
    /// Why it leaves, if something must change before it can come back.
    pub(super) verdict: Option<String>,
    outbox: Outbox,
    link: Link,
    pub(super) phase: Phase,
    heartbeat_period: Duration,
}

impl Agent {
    pub(super) fn new(
        identity: Identity,
        fences: Fences,
        slots: Slots,
        settings: Arc<Settings>,
        withdrawn: BTreeMap<u32, String>,
        rank_events: mpsc::Sender<RankEvent>,
    ) -> Self {
        Self {
            identity,
            fences,
            slots,
            settings,
            rank_events,
            watches: JoinSet::new(),
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
            withdrawn,
            refusals: Refusals::default(),
            verdict: None,
            outbox: Outbox::default(),
            link: Link::Down,
            phase: Phase::Serving,
            heartbeat_period: FIRST_HEARTBEAT,
        }
    }

    pub(super) const fn worker(&self) -> &WorkerId {
        &self.identity.worker
    }

    /// Where ranks elsewhere reach those here.
    pub(super) fn gang_address(&self) -> IpAddr {
        let seen = match &self.link {
            Link::Up(stream) | Link::Greeting { stream, .. } => Some(stream.own_address),
            Link::Down => None,
        };
        self.settings.gang_address.or(seen).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    pub(super) const fn is_down(&self) -> bool {
        matches!(self.link, Link::Down)
    }

    pub(super) const fn heartbeat_period(&self) -> Duration {
        self.heartbeat_period
    }

    pub(super) async fn join_watches(&mut self) {
        while self.watches.join_next().await.is_some() {}
    }

    /// Something happened to the connection.
    pub(super) fn session(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Opened(stream) => {
                self.link = Link::Greeting { stream, until: Instant::now() + WELCOME_PATIENCE };
                self.say(0, Report::Hello(self.hello()));
            }
            SessionEvent::Order(response) => self.order(*response),
            SessionEvent::Closed { reason } => {
                match &self.link {
                    Link::Up(_) => tracing::warn!(%reason, "lost the coordinator; ranks go on"),
                    Link::Down | Link::Greeting { .. } => {
                        tracing::debug!(%reason, "cannot reach the coordinator");
                    }
                }
                self.link = Link::Down;
                if let Phase::Parting { .. } = self.phase {
                    self.phase = Phase::Finished;
                }
            }
        }
        self.advance();
    }

    fn hello(&self) -> Hello {
        let ranks = self.live.iter().map(|(RankKey { fence, rank }, live)| LiveRank {
            fence: Some(fence.into()),
            rank: *rank,
            slot: live.slot,
            pid: live.pid,
        });
        Hello {
            slots: self.slots.count(),
            ranks: ranks.collect(),
            devices: self.settings.devices.describe(&self.withdrawn),
            ..self.identity.hello()
        }
    }

    /// The coordinator takes this worker: whatever it owes is repeated.
    pub(super) fn welcomed(&mut self, heartbeat: Duration) {
        self.heartbeat_period = heartbeat.max(Duration::from_millis(10));
        if let Link::Greeting { stream, until: _ } = &self.link {
            let coordinator = &stream.coordinator;
            tracing::info!(worker = %self.identity.worker, coordinator, "joined");
            self.link = Link::Up(stream.clone());
        }
        let owed: Vec<_> = self.outbox.unacknowledged().collect();
        for SessionRequest { sequence, report } in owed {
            if let Some(report) = report {
                self.say(sequence, report);
            }
        }
    }

    pub(super) fn acknowledged(&mut self, sequence: u64) {
        self.outbox.acknowledge(sequence);
    }

    /// Says something that need not arrive, or repeats what must.
    fn say(&mut self, sequence: u64, report: Report) {
        let stream = match &self.link {
            Link::Up(stream) => stream,
            Link::Greeting { stream, .. } if matches!(report, Report::Hello(_)) => stream,
            Link::Down | Link::Greeting { .. } => return,
        };
        let request = SessionRequest { sequence, report: Some(report) };
        if stream.reports.try_send(request).is_err() && sequence > 0 {
            // The coordinator does not keep up. What is owed is repeated over the next stream.
            self.hang_up();
        }
    }

    fn owe(&mut self, report: Report) {
        if self.phase == Phase::Superseded {
            return;
        }
        let SessionRequest { sequence, report } = self.outbox.push(report);
        if let Some(report) = report {
            self.say(sequence, report);
        }
    }

    pub(super) fn hang_up(&mut self) {
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Up(stream) | Link::Greeting { stream, .. } => stream.close.cancel(),
            Link::Down => (),
        }
    }

    pub(super) fn heartbeat(&mut self) {
        self.say(0, Report::Heartbeat(Heartbeat {}));
    }

    /// Something happened to a rank.
    pub(super) fn rank(&mut self, RankEvent { key, news }: RankEvent) {
        let fence = Some((&key.fence).into());
        match news {
            News::Exited(outcome) => self.exited(key, outcome),
            News::Undrained { slot, reason } => self.distrust(slot, reason),
            News::Said(FromRank::Rendezvous(meets)) => {
                let address = meets.tell().to_owned();
                self.owe(Report::RendezvousPosted(RendezvousPosted { fence, address }));
            }
            News::Said(FromRank::Checkpoint { step, manifest }) => {
                self.owe(Report::CheckpointWritten(CheckpointWritten {
                    fence,
                    step: step.0,
                    manifest: manifest.to_string(),
                }));
            }
            News::Said(FromRank::Progress { done, total, rate, loss, busy_ms }) => {
                let pid = self.live.get(&key).map_or(0, |live| live.pid);
                let rank = key.rank;
                let [loss, busy_ms] = [loss, busy_ms].map(Option::unwrap_or_default);
                let progress = Progress { fence, done, total, rate, loss, pid, rank, busy_ms };
                self.say(0, Report::Progress(progress));
            }
            // The watch keeps these to itself.
            News::Said(FromRank::Alive { .. } | FromRank::Outcome(_)) => (),
        }
        self.advance();
    }

    /// What the latest look at the devices found.
    pub(super) fn devices(&mut self, faults: BTreeMap<u32, String>) {
        for (slot, reason) in faults {
            self.distrust(slot, reason);
        }
    }

    fn distrust(&mut self, slot: u32, reason: String) {
        if !self.withdrawn.contains_key(&slot) {
            tracing::error!(slot, reason, "a device is withdrawn");
        }
        self.withdraw(slot, reason);
    }

    /// Offers a slot no more, and says so once. A rank that runs there goes on.
    fn withdraw(&mut self, slot: u32, reason: String) {
        if slot >= self.slots.count() || self.withdrawn.contains_key(&slot) {
            return;
        }
        self.withdrawn.insert(slot, reason.clone());
        self.owe(Report::DeviceWithdrawn(DeviceWithdrawn { slot, reason }));
    }

    fn exited(&mut self, key: RankKey, outcome: Outcome) {
        let Some(Live { slot, .. }) = self.live.remove(&key) else { return };
        let RankKey { fence, rank } = &key;
        match &outcome {
            Outcome::Done { .. } | Outcome::Stopped => {
                tracing::info!(%fence, rank, slot, ?outcome, "a rank has ended");
            }
            Outcome::Failed(failure) => {
                tracing::warn!(%fence, rank, slot, %failure, "a rank has failed");
            }
        }
        self.report_exit(key, Gone { slot, outcome });
    }

    /// Reports a rank as gone, and remembers it for when the order is repeated.
    pub(super) fn report_exit(&mut self, key: RankKey, gone: Gone) {
        let Gone { slot, outcome } = &gone;
        self.owe(Report::RankExited(RankExited::new(&key.fence, key.rank, *slot, outcome)));
        let superseded = |other: &Fence| {
            (&other.run, other.work) == (&key.fence.run, key.fence.work)
                && other.incarnation < key.fence.incarnation
        };
        self.gone.retain(|other, _| !superseded(&other.fence));
        self.gone.insert(key, gone);
    }

    /// Begins to leave; told again, kills what is left.
    pub(super) fn leave(&mut self, why: &str) {
        match self.phase {
            Phase::Serving | Phase::Superseded => {
                tracing::info!(why, "leaving: ranks save and stop");
                // First, so that no new rank is sent to the seats that become free.
                for slot in 0..self.slots.count() {
                    self.withdraw(slot, format!("the agent is leaving ({why})"));
                }
                self.wish_all(&Wish::Save);
                self.phase = Phase::Leaving;
            }
            Phase::Leaving => {
                tracing::warn!(why, "told again: killing the ranks");
                self.wish_all(&Wish::Kill);
            }
            Phase::Reporting { .. } | Phase::Parting { .. } | Phase::Finished => {
                self.phase = Phase::Finished;
            }
        }
        self.advance();
    }

    pub(super) fn wish_all(&self, wish: &Wish) {
        for live in self.live.values() {
            live.wish(wish.clone());
        }
    }

    /// When to stop waiting for whatever is being waited for.
    pub(super) fn patience_ends(&self) -> Instant {
        let greeting = match self.link {
            Link::Greeting { until, .. } => Some(until),
            Link::Down | Link::Up(_) => None,
        };
        let parting = match self.phase {
            Phase::Reporting { until } | Phase::Parting { until } => Some(until),
            Phase::Serving | Phase::Superseded | Phase::Leaving | Phase::Finished => None,
        };
        let never = Instant::now() + Duration::from_secs(3600);
        [greeting, parting].into_iter().flatten().min().unwrap_or(never)
    }

    pub(super) fn patience_ended(&mut self) {
        let now = Instant::now();
        if let Link::Greeting { until, .. } = self.link
            && until <= now
        {
            self.hang_up();
        }
        match self.phase {
            Phase::Reporting { until } if until <= now => self.say_goodbye(),
            Phase::Parting { until } if until <= now => self.phase = Phase::Finished,
            Phase::Serving
            | Phase::Superseded
            | Phase::Leaving
            | Phase::Reporting { .. }
            | Phase::Parting { .. }
            | Phase::Finished => (),
        }
    }

    /// Goes on to the next phase if this one's work is done.
    fn advance(&mut self) {
        if self.phase == Phase::Superseded && self.live.is_empty() {
            match self.identity.renew() {
                Ok(()) => {
                    self.outbox = Outbox::default();
                    self.phase = Phase::Serving;
                    tracing::info!(worker = %self.identity.worker, "joining as a new worker");
                    self.hang_up();
                }
                Err(error) => {
                    self.verdict = Some(format!("no new id can be drawn: {error}"));
                    self.phase = Phase::Finished;
                }
            }
        }
        if self.phase == Phase::Leaving && self.live.is_empty() {
            self.phase = Phase::Reporting { until: Instant::now() + LAST_WORDS_PATIENCE };
        }
        if matches!(self.phase, Phase::Reporting { .. }) && self.outbox.is_empty() {
            self.say_goodbye();
        }
    }

    fn say_goodbye(&mut self) {
        self.say(0, Report::Goodbye(Goodbye {}));
        self.phase = match std::mem::replace(&mut self.link, Link::Down) {
            // Dropping the sender ends the stream once everything queued is sent.
            Link::Up(_) => Phase::Parting { until: Instant::now() + GOODBYE_PATIENCE },
            Link::Down | Link::Greeting { .. } => Phase::Finished,
        };
    }
}

impl Live {
    /// A watch that takes no more wishes is ending.
    pub(super) fn wish(&self, wish: Wish) {
        let _: Result<_, _> = self.wishes.try_send(wish);
    }
}
