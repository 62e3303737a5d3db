//! The one task that owns the state while this process leads: events in, transaction, actions out.
//!
//! State is saved before the actions it implies are performed, and before anybody is answered. A
//! crash between the two repeats actions, and never forgets one: what a new leader finds seated is
//! ordered again when its worker attaches, and what was being inspected is inspected again.
//! Events that wait together share a transaction.

mod batch;
mod not_taken;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clade_core::ids::{Fence, Millis, NodeName, RunName, Term, WorkerId};
use clade_core::schedule::invariants::{About, violations};
use clade_core::schedule::{
    Action, Effects, Event, Farewell, Limits, RunPhase, State, admit, step, undo,
};
use clade_core::spec::RunSpec;
use clade_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, error, info, warn};

use self::batch::{After, Batch};
pub(crate) use self::not_taken::NotTaken;
use crate::metrics::{Metrics, Outcome};
use crate::observed::Observed;
use crate::question::Question;
use crate::state::{Cluster, Lead, LeadError, codec};
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

/// How often workers and works are counted for metrics.
const COUNT: Duration = Duration::from_secs(5);

/// Commands that may wait.
const COMMANDS: usize = 4096;

/// Words about inspections that may wait; those beyond are said again.
const TROUBLES: usize = 256;

/// How often it is said that the state is waited for.
const WAITING: Duration = Duration::from_secs(1);

/// Commands that may share a transaction, so that nobody waits long for an answer.
const AT_ONCE: usize = 512;

/// What may be asked of the engine.
pub(crate) enum Command {
    Attach {
        worker: WorkerId,
        stream: StreamId,
        orders: Orders,
        event: Event,
        /// Why the worker is not taken; dropped if it is.
        refused: oneshot::Sender<NotTaken>,
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
        worker: WorkerId,
        fence: Fence,
        progress: v1::Progress,
    },
    /// What applying this would do, or why it may not: asked before anything is written for it.
    Propose {
        spec: Box<RunSpec>,
        queue: bool,
        reply: oneshot::Sender<Result<v1::ApplyEffect, Status>>,
    },
    Apply {
        spec: Box<RunSpec>,
        tars: u32,
        /// Whether it may need more seats than there are.
        queue: bool,
        reply: oneshot::Sender<Result<v1::ApplyEffect, Status>>,
    },
    Cancel {
        run: RunName,
        reply: oneshot::Sender<Result<(), Status>>,
    },
    Cordon {
        node: NodeName,
        reason: String,
        drain: bool,
        reply: oneshot::Sender<Result<(), Status>>,
    },
    Uncordon {
        node: NodeName,
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
    term: Term,
    cluster: Cluster,
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

    /// Under which it leads.
    pub(crate) const fn term(&self) -> Term {
        self.term
    }

    /// Whose runs it decides about.
    pub(crate) const fn cluster(&self) -> &Cluster {
        &self.cluster
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
pub(crate) fn new(
    lead: Box<dyn Lead>,
    limits: Limits,
    state: State,
    metrics: Metrics,
) -> (Engine, Task) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let (trouble, troubles) = mpsc::channel(TROUBLES);
    let (over, term, cluster) = (CancellationToken::new(), state.term, lead.cluster());
    let task = Task {
        lead,
        limits,
        state,
        metrics,
        counted: None,
        commands,
        over: over.clone(),
        observed: Observed::default(),
        streams: BTreeMap::new(),
        outside: JoinSet::new(),
        troubles,
        trouble,
    };
    (Engine { commands: sender, over, term, cluster }, task)
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
    metrics: Metrics,
    /// When workers and works were counted last.
    counted: Option<Instant>,
    commands: mpsc::Receiver<Command>,
    over: CancellationToken,
    observed: Observed,
    streams: BTreeMap<WorkerId, (StreamId, Orders)>,
    /// Listings and deletions in the object store, each of which ends in an event or in nothing.
    outside: JoinSet<Option<Event>>,
    /// Why inspections have not ended, as they say it.
    troubles: mpsc::Receiver<(Fence, String)>,
    trouble: mpsc::Sender<(Fence, String)>,
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
        let _taken = self.event(Event::TookLead { term }, &mut batch);
        self.finish(batch).await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut more = true;
        loop {
            let mut batch = Batch::default();
            if more {
                // Parts of a large change follow one another, but let in what came meanwhile.
                let _taken = self.event(Event::Tick, &mut batch);
                self.let_in(&mut batch);
                more = batch.has_more();
                self.finish(batch).await?;
                continue;
            }
            // Every branch is safe to cancel: none holds a message across an await.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(true),
                () = lost.cancelled() => return Ok(false),
                _ = ticks.tick() => {
                    self.count();
                    let _taken = self.event(Event::Tick, &mut batch);
                }
                Some(ended) = self.outside.join_next() => match ended {
                    Ok(Some(event)) => {
                        let _taken = self.event(event, &mut batch);
                    }
                    Ok(None) => (),
                    // An inspection catches its own panics; what could not be deleted is left.
                    Err(error) => error!(%error, "a store task panicked"),
                },
                Some((fence, why)) = self.troubles.recv() => self.observed.trouble(fence, why),
                Some(command) = self.commands.recv() => self.command(command, &mut batch),
            }
            self.let_in(&mut batch);
            more = batch.has_more();
            self.finish(batch).await?;
        }
    }

    /// Lets commands that wait join a batch.
    fn let_in(&mut self, batch: &mut Batch) {
        for _ in 0..AT_ONCE {
            if batch.is_enough() {
                return;
            }
            let Ok(command) = self.commands.try_recv() else { return };
            self.command(command, batch);
        }
    }

    /// Saves a batch, then does what follows from it, in order.
    async fn finish(&mut self, batch: Batch) -> Result<(), LeadError> {
        let (transactions, after) = batch.split();
        for writes in transactions {
            let begun = Instant::now();
            let saved = {
                // It may wait as long as the lead lasts, and must not be dropped half way.
                let mut saving = std::pin::pin!(self.lead.save(&writes));
                loop {
                    match tokio::time::timeout(WAITING, saving.as_mut()).await {
                        Ok(saved) => break saved,
                        Err(_) => self.metrics.waits(Instant::now()),
                    }
                }
            };
            let outcome = match &saved {
                Ok(()) => Outcome::Committed,
                Err(LeadError::Deposed { .. }) => Outcome::Refused,
                Err(_) => Outcome::Unknown,
            };
            self.metrics.transaction(outcome, writes.len(), begun.elapsed());
            saved?;
        }
        self.metrics.ticked(Instant::now());
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
                After::Welcome(worker) => {
                    let welcome = v1::Welcome { heartbeat_ms: 1000 };
                    self.order(&worker, v1::session_response::Order::Welcome(welcome));
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
            Command::Attach { worker, stream, orders, event, refused } => {
                // While this engine could not save, the worker may have given up and come again.
                if orders.sender.is_closed() {
                    return;
                }
                let at = batch.after.len();
                if let Some(why) = self.event(event, batch) {
                    warn!(%worker, %why, "refuses a worker");
                    refused.send(why).ok();
                    return;
                }
                if let Some((_, old)) = self.streams.insert(worker.clone(), (stream, orders)) {
                    old.hang_up.cancel();
                }
                batch.after.insert(at, After::Welcome(worker));
            }
            Command::Detach { worker, stream } => {
                if self.streams.get(&worker).is_some_and(|(current, _)| *current == stream) {
                    self.streams.remove(&worker);
                    let _known = self.event(Event::WorkerDetached { worker }, batch);
                }
            }
            Command::Report { worker, sequence, event } => {
                // Acknowledged even if it was refused: it would be refused again.
                let _told = self.event(event, batch);
                if sequence > 0 {
                    batch.after.push(After::Acknowledge { worker, sequence });
                }
            }
            Command::Progress { worker, fence, progress } => {
                let seat = self.state.seat(&fence, progress.rank);
                let is_its_own = seat.is_some_and(|seat| seat.worker == worker);
                let event = Event::Progressed {
                    worker,
                    fence: fence.clone(),
                    rank: progress.rank,
                    done: progress.done,
                    busy_us: outside::micros(progress.busy_ms),
                };
                let refused = self.event(event, batch);
                if is_its_own && refused.is_none() {
                    self.observed.progress(fence, &progress);
                }
            }
            Command::Propose { spec, queue, reply: to } => {
                let effect = self.would_apply(&spec, queue);
                batch.after.push(After::Reply(Box::new(move || drop(to.send(effect)))));
            }
            Command::Apply { spec, tars, queue, reply: to } => {
                let effect = self.apply(spec, tars, queue, batch);
                batch.after.push(After::Reply(Box::new(move || drop(to.send(effect)))));
            }
            Command::Cancel { run, reply: to } => {
                let answer = if self.state.runs.contains_key(&run) {
                    let refused = self.event(Event::CancelRequested { run }, batch);
                    refused.map_or(Ok(()), |why| Err(why.status()))
                } else {
                    Err(outside::unknown_run(&run))
                };
                batch.after.push(After::Reply(Box::new(move || drop(to.send(answer)))));
            }
            Command::Cordon { node, reason, drain, reply: to } => {
                let refused = self.event(Event::NodeCordoned { node, reason, drain }, batch);
                let answer = refused.map_or(Ok(()), |why| Err(why.status()));
                batch.after.push(After::Reply(Box::new(move || drop(to.send(answer)))));
            }
            Command::Uncordon { node, reply: to } => {
                let refused = self.event(Event::NodeUncordoned { node }, batch);
                let answer = refused.map_or(Ok(()), |why| Err(why.status()));
                batch.after.push(After::Reply(Box::new(move || drop(to.send(answer)))));
            }
            Command::Ask(question) => {
                batch.after.push(After::Reply(question.answer(&self.state, &self.observed, now())));
            }
        }
    }

    /// What applying `spec` does to the state as it is, or why it is refused.
    fn would_apply(&self, spec: &RunSpec, queue: bool) -> Result<v1::ApplyEffect, Status> {
        match self.state.runs.get(spec.name()) {
            None => {
                if !queue {
                    let admitted = admit(&self.state, spec);
                    admitted.map_err(|why| Status::invalid_argument(why.to_string()))?;
                }
                Ok(v1::ApplyEffect::Created)
            }
            Some(run) if run.head.spec != *spec => Err(outside::other_document(spec.name())),
            Some(run) => Ok(match run.head.phase {
                RunPhase::Active | RunPhase::Finished => v1::ApplyEffect::Unchanged,
                RunPhase::Failed { .. } | RunPhase::Cancelled | RunPhase::Stopping { .. } => {
                    v1::ApplyEffect::Resumed
                }
            }),
        }
    }

    fn apply(
        &mut self,
        spec: Box<RunSpec>,
        tars: u32,
        queue: bool,
        batch: &mut Batch,
    ) -> Result<v1::ApplyEffect, Status> {
        let effect = self.would_apply(&spec, queue)?;
        let refused = self.event(Event::Applied { spec, tars }, batch);
        refused.map_or(Ok(effect), |why| Err(why.status()))
    }

    /// The choke point: one event changes the state in memory and joins the batch. Returns why it was
    /// not taken, if it was not.
    fn event(&mut self, event: Event, batch: &mut Batch) -> Option<NotTaken> {
        if event != Event::Tick {
            debug!(?event, "event");
        }
        let about = About::of(&event);
        let (begun, name) = (Instant::now(), event.name());
        let effects = step(&mut self.state, self.limits, now(), event);
        self.metrics.event(name, begun.elapsed());
        let writes = codec::encode(&self.state, &effects.changed);
        if let Some(why) = NotTaken::too_large(&writes) {
            return Some(self.take_back(effects, why));
        }
        effects.actions.iter().for_each(|action| self.metrics.action(action.name()));
        effects.refusal.iter().for_each(|why| self.metrics.refusal(why.name()));
        for Farewell { fence, why, kept } in &effects.farewells {
            self.metrics.gang_left(why, *kept);
            info!(%fence, why, outcome = kept.name(), "a gang has left as it was asked to");
        }
        for violation in violations(&about, &effects, &self.state) {
            self.metrics.invariant_violated(violation.invariant);
            error!(invariant = violation.invariant, seen = violation.seen, "invariant broken");
        }
        batch.join(writes, effects.more);
        batch.after.extend(effects.actions.into_iter().map(|action| After::Act(Box::new(action))));
        effects.refusal.map(NotTaken::from)
    }

    /// Makes the state what it was: what cannot be saved must not be decided upon.
    fn take_back(&mut self, effects: Effects, why: NotTaken) -> NotTaken {
        error!(%why, "takes an event back");
        self.metrics.refusal("too_large");
        undo(&mut self.state, &self.limits, effects);
        why
    }

    /// Counts what there is, now and then: it looks at everything.
    fn count(&mut self) {
        if self.counted.is_some_and(|at| at.elapsed() < COUNT) {
            return;
        }
        self.counted = Some(Instant::now());
        self.observed.prune(&self.state);
        self.metrics.workers(&view::worker_counts(&self.state));
        self.metrics.works(&view::work_counts(&self.state));
        let time = Duration::from_millis(self.state.seat_time().0);
        self.metrics.seats(self.state.seat_failures(), time);
    }

    fn perform(&mut self, action: Action) {
        use v1::session_response::Order;
        match action {
            Action::StartRank(start) => {
                let worker = start.seat.worker.clone();
                self.order(&worker, Order::StartRank(outside::start_rank(&start)));
            }
            Action::StopRank { seat, fence, rank, save, tell } => {
                let (slot, of) = (seat.slot, Some((&fence).into()));
                let stop = v1::StopRank { fence: of, slot, rank, save, tell };
                self.order(&seat.worker, Order::StopRank(stop));
            }
            Action::ShareRendezvous { worker, fence, address } => {
                let address = address.tell().to_owned();
                let share = v1::ShareRendezvous { fence: Some((&fence).into()), address };
                self.order(&worker, Order::ShareRendezvous(share));
            }
            Action::Refuse { worker, fence, why } => {
                warn!(%worker, %fence, %why, "refuses a report");
                let reason = outside::refusal_reason(&why);
                let refused = v1::Refused::new(Some(&fence), reason, why.to_string());
                self.order(&worker, Order::Refused(refused));
            }
            Action::Supersede { worker } => {
                self.order(&worker, Order::Superseded(v1::Superseded {}))
            }
            Action::Inspect { fence } => {
                if let Some(run) = self.state.runs.get(&fence.run) {
                    let store = run.head.spec.spec.store.clone();
                    let trouble = self.trouble.clone();
                    self.outside.spawn(outside::inspect(store, fence, trouble));
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

#[cfg(test)]
mod tests;
