//! The one task that owns the state while this process leads: events in, transaction, actions out.
//!
//! State is saved before the actions it implies are performed, and before anybody is answered. A
//! crash between the two repeats actions, and never forgets one: what a new leader finds seated is
//! ordered again when its worker attaches, and what was being inspected is inspected again.
//! Events that wait together share a transaction.

mod batch;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clade_core::ids::{Fence, Millis, RunName, WorkerId};
use clade_core::schedule::{Action, Event, Limits, RunPhase, State, invariants, step};
use clade_core::spec::RunSpec;
use clade_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, error, info, warn};

use self::batch::{After, Batch};
use crate::observed::Observed;
use crate::outside;
use crate::question::Question;
use crate::state::{Lead, LeadError, codec};

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

/// Commands that may wait.
const COMMANDS: usize = 4096;

/// Commands that may share a transaction, so that nobody waits long for an answer.
const AT_ONCE: usize = 512;

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
    Progress {
        fence: Fence,
        progress: v1::Progress,
    },
    Apply {
        spec: Box<RunSpec>,
        tars: u32,
        reply: oneshot::Sender<Result<v1::ApplyEffect, Status>>,
    },
    Cancel {
        run: RunName,
        reply: oneshot::Sender<Result<(), Status>>,
    },
    /// What a standby could answer, too.
    Ask(Question),
}

/// A handle to the engine; cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine {
    commands: mpsc::Sender<Command>,
    over: CancellationToken,
}

impl Engine {
    pub(crate) async fn send(&self, command: Command) -> Result<(), Status> {
        self.commands.send(command).await.map_err(|_| no_longer())
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| no_longer())
    }

    /// Waits until this engine decides nothing any more.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }
}

/// What is told to whoever waits for an engine that ended.
pub(crate) fn no_longer() -> Status {
    Status::unavailable("this coordinator leads no longer; try again")
}

/// Makes an engine for `state`; it decides once its task runs.
pub(crate) fn new(lead: Box<dyn Lead>, limits: Limits, state: State) -> (Engine, Task) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let over = CancellationToken::new();
    let task = Task {
        lead,
        limits,
        state,
        commands,
        over: over.clone(),
        observed: Observed::default(),
        streams: BTreeMap::new(),
        outside: JoinSet::new(),
    };
    (Engine { commands: sender, over }, task)
}

/// How an engine came to its end.
pub(crate) enum Ended {
    /// It was told to stop and still leads.
    Shutdown(Box<dyn Lead>),
    Deposed,
}

/// The engine itself.
pub(crate) struct Task {
    lead: Box<dyn Lead>,
    limits: Limits,
    state: State,
    commands: mpsc::Receiver<Command>,
    over: CancellationToken,
    observed: Observed,
    streams: BTreeMap<WorkerId, (StreamId, Orders)>,
    /// Listings and deletions in the object store, each of which ends in an event or in nothing.
    outside: JoinSet<Option<Event>>,
}

impl Task {
    /// Decides until `shutdown`, or until the lead is lost.
    pub(crate) async fn run(mut self, shutdown: &CancellationToken) -> Result<Ended, LeadError> {
        let ended = self.decide(shutdown).await;
        // Streams end before anybody else can lead, or soon after.
        self.over.cancel();
        ended.map(
            |is_shutdown| if is_shutdown { Ended::Shutdown(self.lead) } else { Ended::Deposed },
        )
    }

    /// Gives whether it was told to stop.
    async fn decide(&mut self, shutdown: &CancellationToken) -> Result<bool, LeadError> {
        let lost = self.lead.lost();
        let mut batch = Batch::default();
        let term = self.state.term;
        self.event(Event::TookLead { term }, &mut batch);
        self.finish(batch).await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut batch = Batch::default();
            // Every branch is safe to cancel: none holds a message across an await.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(true),
                () = lost.cancelled() => return Ok(false),
                _ = ticks.tick() => self.event(Event::Tick, &mut batch),
                Some(ended) = self.outside.join_next() => match ended {
                    Ok(Some(event)) => self.event(event, &mut batch),
                    Ok(None) => (),
                    // What it was to find out is asked again by the next leader, this one or another.
                    Err(error) => error!(%error, "a store task panicked"),
                },
                Some(command) = self.commands.recv() => self.command(command, &mut batch),
            }
            for _ in 0..AT_ONCE {
                if batch.is_enough() {
                    break;
                }
                let Ok(command) = self.commands.try_recv() else { break };
                self.command(command, &mut batch);
            }
            self.finish(batch).await?;
        }
    }

    /// Saves a batch, then does what follows from it, in order.
    async fn finish(&mut self, batch: Batch) -> Result<(), LeadError> {
        let (transactions, after) = batch.split();
        for writes in transactions {
            self.lead.save(&writes).await?;
        }
        if !after.is_empty() && !self.lead.is_held() {
            let why = "its lease ran out while it was saving".to_owned();
            return Err(LeadError::Deposed { term: self.state.term, why });
        }
        for next in after {
            match next {
                After::Act(action) => {
                    info!(?action, "action");
                    self.perform(*action);
                }
                After::Acknowledge { worker, sequence } => {
                    let done = v1::Acknowledge { sequence };
                    self.order(&worker, v1::session_response::Order::Acknowledge(done));
                }
                After::Reply(reply) => reply(),
            }
        }
        Ok(())
    }

    fn command(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Attach { worker, stream, orders, event } => {
                let welcome =
                    v1::session_response::Order::Welcome(v1::Welcome { heartbeat_ms: 1000 });
                self.streams.insert(worker.clone(), (stream, orders));
                self.order(&worker, welcome);
                self.event(event, batch);
            }
            Command::Detach { worker, stream } => {
                if self.streams.get(&worker).is_some_and(|(current, _)| *current == stream) {
                    self.streams.remove(&worker);
                    self.event(Event::WorkerDetached { worker }, batch);
                }
            }
            Command::Report { worker, sequence, event } => {
                self.event(event, batch);
                if sequence > 0 {
                    batch.after.push(After::Acknowledge { worker, sequence });
                }
            }
            Command::Progress { fence, progress } => {
                let current = self.state.runs.get(&fence.run).and_then(|run| run.fence(fence.work));
                if current.as_ref() == Some(&fence) {
                    self.observed.progress(fence, &progress);
                }
            }
            Command::Apply { spec, tars, reply: to } => {
                let effect = self.apply(spec, tars, batch);
                batch.after.push(After::Reply(Box::new(move || drop(to.send(effect)))));
            }
            Command::Cancel { run, reply: to } => {
                let answer = if self.state.runs.contains_key(&run) {
                    self.event(Event::CancelRequested { run }, batch);
                    Ok(())
                } else {
                    Err(outside::unknown_run(&run))
                };
                batch.after.push(After::Reply(Box::new(move || drop(to.send(answer)))));
            }
            Command::Ask(question) => {
                let answer = question.answer(&self.state, &self.observed, now());
                batch.after.push(After::Reply(answer));
            }
        }
    }

    fn apply(
        &mut self,
        spec: Box<RunSpec>,
        tars: u32,
        batch: &mut Batch,
    ) -> Result<v1::ApplyEffect, Status> {
        let effect = match self.state.runs.get(spec.name()) {
            None => v1::ApplyEffect::Created,
            Some(run) if run.head.spec != *spec => {
                return Err(outside::other_document(spec.name()));
            }
            Some(run) => match run.head.phase {
                RunPhase::Active | RunPhase::Finished => v1::ApplyEffect::Unchanged,
                RunPhase::Failed { .. } | RunPhase::Cancelled | RunPhase::Stopping { .. } => {
                    v1::ApplyEffect::Resumed
                }
            },
        };
        self.event(Event::Applied { spec, tars }, batch);
        Ok(effect)
    }

    /// The choke point: one event changes the state in memory and joins the batch.
    fn event(&mut self, event: Event, batch: &mut Batch) {
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
        batch.join(codec::encode(&self.state, &effects.changed));
        batch.after.extend(effects.actions.into_iter().map(|action| After::Act(Box::new(action))));
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
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
