//! How an agent takes orders. Every one is safe to repeat, and a stale one is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clade_core::ids::{CheckpointRef, Fence, Term};
use clade_core::job::{Failure, JobFile, Outcome};
use clade_core::rendezvous::Rendezvous;
use clade_core::spec::Span;
use clade_proto::convert::{WireError, required};
use clade_proto::v1::session_response::Order;
use clade_proto::v1::{
    Acknowledge, SessionResponse, ShareRendezvous, StartRank, StopRank, Superseded, Welcome,
};
use tokio::sync::mpsc;

use super::child::{self, Launch, RankKey};
use super::state::{Agent, Gone, Live, Phase};
use super::watch::{self, Wish};

const QUEUED_WISHES: usize = 16;

impl Agent {
    pub(super) fn order(&mut self, SessionResponse { term, order }: SessionResponse) {
        if self.is_down() {
            // Said over a stream that was hung up.
            return;
        }
        if let Err(refusal) = self.fences.admit_term(Term(term)) {
            tracing::warn!(%refusal, "hanging up");
            self.hang_up();
            return;
        }
        let Some(order) = order else {
            tracing::warn!("an order this version does not know was passed over");
            return;
        };
        tracing::debug!(what = name_of(&order), "ordered");
        let obeyed = match order {
            Order::Welcome(Welcome { heartbeat_ms }) => {
                self.welcomed(Duration::from_millis(u64::from(heartbeat_ms)));
                Ok(())
            }
            Order::Superseded(Superseded {}) => {
                self.superseded();
                Ok(())
            }
            Order::StartRank(start) => self.start_rank(&start),
            Order::StopRank(stop) => self.stop_rank(&stop),
            Order::ShareRendezvous(share) => self.share_rendezvous(&share),
            Order::Acknowledge(Acknowledge { sequence }) => {
                self.acknowledged(sequence);
                Ok(())
            }
            Order::Refused(refused) => self.refused(&refused),
        };
        if let Err(error) = obeyed {
            tracing::error!(%error, "an order makes no sense");
        }
    }

    fn superseded(&mut self) {
        tracing::warn!(worker = %self.worker(), "this worker was declared lost: its ranks end");
        match self.phase {
            Phase::Serving => {
                self.wish_all(&Wish::Kill);
                self.phase = Phase::Superseded;
            }
            Phase::Leaving => self.wish_all(&Wish::Kill),
            Phase::Superseded
            | Phase::Reporting { .. }
            | Phase::Parting { .. }
            | Phase::Finished => (),
        }
    }

    fn start_rank(&mut self, start: &StartRank) -> Result<(), WireError> {
        if self.phase != Phase::Serving {
            // The coordinator learns of the leaving soon enough.
            return Ok(());
        }
        let mut launch = read_launch(start)?;
        let key = launch.key.clone();
        if let Some(live) = self.live.get(&key) {
            if let Some(address) = launch.job.rendezvous {
                live.wish(Wish::Rendezvous(address));
            }
            return Ok(());
        }
        if let Some(gone) = self.gone.get(&key).cloned() {
            self.report_exit(key, gone);
            return Ok(());
        }
        if launch.key.rank == 0 && launch.job.ranks > 1 {
            // Where it listens for the others; the system finds a free port.
            let any_port = SocketAddr::new(self.gang_address(), 0).to_string();
            launch.job.rendezvous = Some(any_port.into());
        }
        let slot = launch.slot;
        if let Err(failure) = self.seat(launch) {
            let RankKey { fence, rank } = &key;
            tracing::warn!(%fence, rank, slot, %failure, "a rank was not started");
            self.report_exit(key, Gone { slot, outcome: Outcome::Failed(failure) });
        }
        Ok(())
    }

    /// Starts a rank, or says why not.
    fn seat(&mut self, launch: Launch) -> Result<(), Failure> {
        let RankKey { fence, rank } = launch.key.clone();
        let refused = |message: String| Failure::Launch { rank, message };
        self.fences.admit(&fence).map_err(|refusal| refused(refusal.to_string()))?;
        let Launch { slot, grace, .. } = launch;
        if slot >= self.slots.count() {
            return Err(refused(format!("there is no slot {slot} of {}", self.slots.count())));
        }
        if let Some(reason) = self.withdrawn.get(&slot) {
            return Err(refused(format!("the device of slot {slot} is withdrawn: {reason}")));
        }
        // Its process may be gone already, but not its memory.
        if self.live.values().any(|live| live.slot == slot) {
            return Err(refused(format!("slot {slot} is taken: its rank has not ended")));
        }
        let lock = self
            .slots
            .take(slot)
            .map_err(|error| refused(format!("cannot lock slot {slot}: {error}")))?
            .ok_or_else(|| refused(format!("slot {slot} is taken: its rank has not ended")))?;
        let started = child::start(&launch, &self.settings, lock)?;
        tracing::info!(%fence, rank, slot, pid = started.pid, "started a rank");
        let (wishes, heard) = mpsc::channel(QUEUED_WISHES);
        let live = Live { slot, pid: started.pid, wishes };
        self.live.insert(launch.key.clone(), live);
        let (settings, events) = (Arc::clone(&self.settings), self.rank_events.clone());
        self.watches.spawn(watch::watch(launch.key, slot, started, grace, settings, heard, events));
        // Ended watches are let go.
        while self.watches.try_join_next().is_some() {}
        Ok(())
    }

    fn stop_rank(&mut self, stop: &StopRank) -> Result<(), WireError> {
        let StopRank { fence, slot, rank, save, tell } = stop;
        let fence = Fence::try_from(&required("fence", fence.clone())?)?;
        let key = RankKey { fence, rank: *rank };
        if let Some(live) = self.live.get(&key) {
            live.wish(match (save, tell) {
                (true, _) => Wish::Save,
                (false, true) => Wish::Tell,
                (false, false) => Wish::Kill,
            });
            return Ok(());
        }
        let stopped = Gone { slot: *slot, outcome: Outcome::Stopped };
        let gone = self.gone.get(&key).cloned().unwrap_or(stopped);
        self.report_exit(key, gone);
        Ok(())
    }

    fn share_rendezvous(&self, share: &ShareRendezvous) -> Result<(), WireError> {
        let ShareRendezvous { fence, address } = share;
        let fence = Fence::try_from(&required("fence", fence.clone())?)?;
        for (key, live) in &self.live {
            if key.fence == fence && key.rank > 0 {
                live.wish(Wish::Rendezvous(address.as_str().into()));
            }
        }
        Ok(())
    }
}

/// Orders are not logged whole: some hold their gang's secret.
const fn name_of(order: &Order) -> &'static str {
    match order {
        Order::Welcome(_) => "welcome",
        Order::Superseded(_) => "superseded",
        Order::StartRank(_) => "start a rank",
        Order::StopRank(_) => "stop a rank",
        Order::ShareRendezvous(_) => "where a gang meets",
        Order::Acknowledge(_) => "acknowledged",
        Order::Refused(_) => "refused",
    }
}

fn read_launch(start: &StartRank) -> Result<Launch, WireError> {
    let StartRank {
        fence,
        slot,
        rank,
        ranks,
        store,
        resume,
        fallbacks,
        models,
        rendezvous,
        grace_ms,
        between_failures_ms,
    } = start;
    let fence = Fence::try_from(&required("fence", fence.clone())?)?;
    let checkpoints = |all: &[_]| -> Result<Vec<CheckpointRef>, WireError> {
        all.iter().map(CheckpointRef::try_from).collect()
    };
    let job = JobFile {
        store: store.clone(),
        run: fence.run.clone(),
        work: fence.work,
        incarnation: fence.incarnation,
        rank: *rank,
        ranks: *ranks,
        rendezvous: rendezvous.clone().map(Rendezvous::from),
        resume: resume.as_ref().map(CheckpointRef::try_from).transpose()?,
        fallbacks: checkpoints(fallbacks)?,
        models: checkpoints(models)?.into_iter().map(|at| (at.model, at)).collect(),
        between_failures: between_failures_ms.map(Span::from_millis),
    };
    let key = RankKey { fence, rank: *rank };
    Ok(Launch { key, slot: *slot, job, grace: Duration::from_millis(*grace_ms) })
}
