//! The one task that owns the state: events in, transaction, then actions out.
//!
//! State is saved before the actions it implies are performed. A crash between the two repeats
//! actions, and never forgets one: what a restarted coordinator finds seated is ordered again
//! when its worker attaches, and what was being inspected is inspected again.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clade_core::ids::{Fence, Millis, RunName, WorkerId};
use clade_core::schedule::{Action, Event, Limits, RunPhase, State, invariants, step};
use clade_core::spec::RunSpec;
use clade_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, error, info, warn};

use crate::observed::Observed;
use crate::state::Db;
use crate::{outside, view};

/// Orders to one worker, in order.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) sender: mpsc::Sender<Result<v1::SessionResponse, Status>>,
    /// Ends the stream, whose end is then told as any other's.
    pub(crate) hang_up: CancellationToken,
}

/// Counts streams, so that the end of an old one is not taken for the end of a new one.
pub(crate) type StreamId = u64;

/// How often time passes for the scheduler.
const TICK: Duration = Duration::from_millis(100);

/// Orders a slow worker may be behind before its stream is given up.
pub(crate) const ORDERS_IN_FLIGHT: usize = 1024;

/// What may be asked of the engine.
pub(crate) enum Command {
    Attach {
        worker: WorkerId,
        stream: StreamId,
        orders: Orders,
        event: Event,
    },
    Detach {
        worker: WorkerId,
        stream: StreamId,
    },
    /// A worker's report; acknowledged once it is saved.
    Report {
        worker: WorkerId,
        sequence: u64,
        event: Event,
    },
    /// A report that decides nothing; acknowledged at once.
    Noted {
        worker: WorkerId,
        sequence: u64,
    },
    Progress {
        fence: Fence,
        progress: v1::Progress,
    },
    Apply {
        spec: Box<RunSpec>,
        tars: u32,
        reply: oneshot::Sender<Result<v1::ApplyEffect, Status>>,
    },
    Find {
        run: RunName,
        reply: oneshot::Sender<Option<(RunSpec, RunPhase)>>,
    },
    Cancel {
        run: RunName,
        reply: oneshot::Sender<Result<(), Status>>,
    },
    Status {
        run: Option<RunName>,
        reply: oneshot::Sender<v1::GetStatusResponse>,
    },
}

/// A handle to the engine; cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine {
    commands: mpsc::Sender<Command>,
}

impl Engine {
    pub(crate) async fn send(&self, command: Command) -> Result<(), Status> {
        let gone = |_| Status::unavailable("the coordinator is stopping; try again");
        self.commands.send(command).await.map_err(gone)
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| Status::unavailable("the coordinator is stopping; try again"))
    }
}

/// Takes the lead and starts the engine's task, which ends when `shutdown` fires.
pub(crate) fn start(
    db: Db,
    limits: Limits,
    shutdown: CancellationToken,
) -> anyhow::Result<(Engine, JoinHandle<anyhow::Result<()>>)> {
    let (state, term) = db.take_lead()?;
    info!(%term, runs = state.runs.len(), workers = state.workers.len(), "takes the lead");
    let (commands, receiver) = mpsc::channel(4096);
    let task = Task {
        db,
        limits,
        state,
        observed: Observed::default(),
        streams: BTreeMap::new(),
        outside: JoinSet::new(),
    };
    let running = tokio::spawn(async move {
        let ended = task.run(receiver, &shutdown).await;
        // A coordinator that cannot write its state must not go on serving.
        shutdown.cancel();
        ended
    });
    Ok((Engine { commands }, running))
}

struct Task {
    db: Db,
    limits: Limits,
    state: State,
    observed: Observed,
    streams: BTreeMap<WorkerId, (StreamId, Orders)>,
    /// Listings and deletions in the object store, each of which ends in an event or in nothing.
    outside: JoinSet<Option<Event>>,
}

impl Task {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let term = self.state.term;
        self.event(Event::TookLead { term })?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Every branch is safe to cancel: none holds a message across an await.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => self.event(Event::Tick)?,
                Some(ended) = self.outside.join_next() => {
                    if let Some(event) = ended.context("a store task panicked")? {
                        self.event(event)?;
                    }
                }
                received = commands.recv() => match received {
                    Some(command) => self.command(command)?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn command(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Attach { worker, stream, orders, event } => {
                let welcome =
                    v1::session_response::Order::Welcome(v1::Welcome { heartbeat_ms: 1000 });
                self.streams.insert(worker.clone(), (stream, orders));
                self.order(&worker, welcome);
                self.event(event)?;
            }
            Command::Detach { worker, stream } => {
                if self.streams.get(&worker).is_some_and(|(current, _)| *current == stream) {
                    self.streams.remove(&worker);
                    self.event(Event::WorkerDetached { worker })?;
                }
            }
            Command::Report { worker, sequence, event } => {
                self.event(event)?;
                self.acknowledge(&worker, sequence);
            }
            Command::Noted { worker, sequence } => self.acknowledge(&worker, sequence),
            Command::Progress { fence, progress } => {
                let current = self.state.runs.get(&fence.run).and_then(|run| run.fence(fence.work));
                if current.as_ref() == Some(&fence) {
                    self.observed.progress(fence, &progress);
                }
            }
            Command::Apply { spec, tars, reply } => {
                let effect = self.apply(spec, tars)?;
                reply.send(effect).ok();
            }
            Command::Find { run, reply } => {
                let found = self.state.runs.get(&run);
                reply.send(found.map(|run| (run.head.spec.clone(), run.head.phase.clone()))).ok();
            }
            Command::Cancel { run, reply } => {
                let answer = if self.state.runs.contains_key(&run) {
                    self.event(Event::CancelRequested { run })?;
                    Ok(())
                } else {
                    Err(outside::unknown_run(&run))
                };
                reply.send(answer).ok();
            }
            Command::Status { run, reply } => {
                let status = view::status(&self.state, &self.observed, now(), run.as_ref());
                reply.send(status).ok();
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        spec: Box<RunSpec>,
        tars: u32,
    ) -> anyhow::Result<Result<v1::ApplyEffect, Status>> {
        let effect = match self.state.runs.get(spec.name()) {
            None => v1::ApplyEffect::Created,
            Some(run) if run.head.spec != *spec => {
                return Ok(Err(outside::other_document(spec.name())));
            }
            Some(run) => match run.head.phase {
                RunPhase::Active | RunPhase::Finished => v1::ApplyEffect::Unchanged,
                RunPhase::Failed { .. } | RunPhase::Cancelled | RunPhase::Stopping { .. } => {
                    v1::ApplyEffect::Resumed
                }
            },
        };
        self.event(Event::Applied { spec, tars })?;
        Ok(Ok(effect))
    }

    /// The choke point: one event, one transaction, then its actions.
    fn event(&mut self, event: Event) -> anyhow::Result<()> {
        if event != Event::Tick {
            debug!(?event, "event");
        }
        let before = cfg!(debug_assertions).then(|| self.state.clone());
        let effects = step(&mut self.state, self.limits, now(), event);
        if let Some(before) = before {
            for violation in invariants::violations(&before, &self.state) {
                error!(violation = violation.0, "invariant broken");
            }
        }
        tokio::task::block_in_place(|| self.db.save(&self.state, &effects.changed))?;
        for action in effects.actions {
            info!(?action, "action");
            self.perform(action);
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) {
        use v1::session_response::Order;
        match action {
            Action::StartRank(start) => {
                let worker = start.seat.worker.clone();
                self.order(&worker, Order::StartRank(outside::start_rank(&start)));
            }
            Action::StopRank { seat, fence, rank, save } => {
                let stop =
                    v1::StopRank { fence: Some((&fence).into()), slot: seat.slot, rank, save };
                self.order(&seat.worker, Order::StopRank(stop));
            }
            Action::ShareRendezvous { worker, fence, address } => {
                let share = v1::ShareRendezvous { fence: Some((&fence).into()), address };
                self.order(&worker, Order::ShareRendezvous(share));
            }
            Action::Refuse { worker, fence, why } => {
                warn!(%worker, %fence, %why, "refuses a late report");
                let stop =
                    v1::StopRank { fence: Some((&fence).into()), slot: 0, rank: 0, save: false };
                self.order(&worker, Order::StopRank(stop));
            }
            Action::Supersede { worker } => {
                self.order(&worker, Order::Superseded(v1::Superseded {}))
            }
            Action::Inspect { fence } => {
                if let Some(run) = self.state.runs.get(&fence.run) {
                    let store = run.head.spec.spec.store.clone();
                    self.outside.spawn(outside::inspect(store, fence));
                }
            }
            Action::Collect { run, checkpoints } => {
                if let Some(found) = self.state.runs.get(&run) {
                    let store = found.head.spec.spec.store.clone();
                    self.outside.spawn(outside::collect(store, run, checkpoints));
                }
            }
        }
    }

    fn acknowledge(&mut self, worker: &WorkerId, sequence: u64) {
        if sequence > 0 {
            let done = v1::Acknowledge { sequence };
            self.order(worker, v1::session_response::Order::Acknowledge(done));
        }
    }

    /// Sends an order if the worker has a stream that keeps up; whoever has none is told when it attaches.
    fn order(&mut self, worker: &WorkerId, order: v1::session_response::Order) {
        let response = v1::SessionResponse { term: self.state.term.0, order: Some(order) };
        let Some((_, orders)) = self.streams.get(worker) else { return };
        // The entry stays until the stream's end is told: only that makes the worker detached.
        match orders.sender.try_send(Ok(response)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => (),
            Err(mpsc::error::TrySendError::Full(_)) => {
                warn!(%worker, "does not take its orders; its stream is ended");
                orders.hang_up.cancel();
            }
        }
    }
}

/// The time as the scheduler counts it.
fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
