//! One event in, new state and actions out.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Event, Gang, Limits, LiveRank, Object, Phase, Refusal, Run, RunHead, RunPhase, Start,
    State, Stop, StopFor, Work, Worker,
};
use crate::ids::{CheckpointRef, Fence, Millis, RunName, Seat, WorkId, WorkerId};
use crate::job::{Failure, Outcome};
use crate::plan::Plan;
use crate::spec::RunSpec;

/// What one event led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Pieces of the state to be saved in one transaction, before any action.
    pub changed: BTreeSet<Object>,
    pub actions: Vec<Action>,
}

/// Applies one event at time `now`, then seats whatever can be seated.
pub fn step(state: &mut State, limits: Limits, now: Millis, event: Event) -> Effects {
    let mut stepper = Stepper { state, limits, now, effects: Effects::default() };
    stepper.apply(event);
    stepper.end_runs();
    stepper.place();
    stepper.effects
}

/// The state with the effects of the event at hand.
pub(super) struct Stepper<'a> {
    pub(super) state: &'a mut State,
    pub(super) limits: Limits,
    pub(super) now: Millis,
    pub(super) effects: Effects,
}

impl Stepper<'_> {
    fn apply(&mut self, event: Event) {
        match event {
            Event::TookLead { term } => self.took_lead(term),
            Event::Applied { spec, tars } => self.applied(*spec, tars),
            Event::CancelRequested { run } => self.stop_run(&run, StopFor::Cancel),
            Event::WorkerAttached { worker, host, pid, slots, ranks } => {
                self.attached(worker, Worker { host, pid, slots, lost_at: None }, &ranks);
            }
            Event::WorkerDetached { worker } => {
                let lost_at = Millis(self.now.0 + self.limits.reattach.0);
                if let Some(known) = self.worker_mut(&worker)
                    && known.lost_at.is_none()
                {
                    known.lost_at = Some(lost_at);
                }
            }
            Event::WorkerLeft { worker } => self.lost(&worker, true),
            Event::RendezvousPosted { fence, address } => self.rendezvous(&fence, address),
            Event::CheckpointReported { worker, fence, checkpoint } => {
                if let Err(why) = self.committed(&fence, checkpoint) {
                    self.effects.actions.push(Action::Refuse { worker, fence, why });
                }
            }
            Event::RankExited { fence, rank, outcome } => self.exited(&fence, rank, outcome),
            Event::Inspected { fence, newest } => self.inspected(&fence, newest),
            Event::Tick => self.tick(),
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.effects.actions.push(action);
    }

    pub(super) fn work_mut(&mut self, run: &RunName, work: WorkId) -> Option<&mut Work> {
        let found = self.state.runs.get_mut(run)?.works.get_mut(&work)?;
        self.effects.changed.insert(Object::Work(run.clone(), work));
        Some(found)
    }

    pub(super) fn head_mut(&mut self, run: &RunName) -> Option<&mut RunHead> {
        let found = self.state.runs.get_mut(run)?;
        self.effects.changed.insert(Object::Run(run.clone()));
        Some(&mut found.head)
    }

    fn worker_mut(&mut self, worker: &WorkerId) -> Option<&mut Worker> {
        let found = self.state.workers.get_mut(worker)?;
        self.effects.changed.insert(Object::Worker(worker.clone()));
        Some(found)
    }

    /// Every (run, work) whose phase satisfies `is_wanted`.
    fn works_where(&self, is_wanted: impl Fn(&Work) -> bool) -> Vec<(RunName, WorkId)> {
        let runs = self.state.runs.iter();
        runs.flat_map(|(name, run)| {
            let wanted = run.works.iter().filter(|(_, work)| is_wanted(work));
            wanted.map(|(&id, _)| (name.clone(), id))
        })
        .collect()
    }

    fn took_lead(&mut self, term: crate::ids::Term) {
        self.state.term = term;
        let lost_at = Some(Millis(self.now.0 + self.limits.takeover.0));
        let workers: Vec<WorkerId> = self.state.workers.keys().cloned().collect();
        for worker in workers {
            if let Some(worker) = self.worker_mut(&worker) {
                worker.lost_at = lost_at;
            }
        }
        // The answer to an inspection asked for by the former leader never comes.
        for (run, id) in self.works_where(|work| matches!(work.phase, Phase::Inspecting { .. })) {
            if let Some(fence) = self.state.runs.get(&run).and_then(|run| run.fence(id)) {
                self.act(Action::Inspect { fence });
            }
        }
    }

    fn applied(&mut self, spec: RunSpec, tars: u32) {
        let name = spec.name().clone();
        let now = self.now;
        let Some(run) = self.state.runs.get(&name) else {
            let plan = Plan::new(&spec, tars);
            let works: BTreeMap<WorkId, Work> =
                plan.works().into_iter().map(|id| (id, Work::new())).collect();
            let all = works.keys().map(|&id| Object::Work(name.clone(), id));
            self.effects.changed.extend(all);
            self.effects.changed.insert(Object::Run(name.clone()));
            let phase = RunPhase::Active;
            let head = RunHead { spec, tars, phase, created: now, ended: None };
            self.state.runs.insert(name, Run { head, works });
            return;
        };
        match run.head.phase {
            RunPhase::Failed { .. } | RunPhase::Cancelled => self.revive(&name),
            RunPhase::Stopping { .. } => {
                if let Some(head) = self.head_mut(&name) {
                    head.phase = RunPhase::Stopping { then: StopFor::Resume };
                }
            }
            RunPhase::Active | RunPhase::Finished => (),
        }
    }

    /// Takes an ended run up again: what had failed may try once more.
    pub(super) fn revive(&mut self, name: &RunName) {
        let is_failed = |work: &Work| matches!(work.phase, Phase::Failed { .. });
        for (_, id) in self.works_where(is_failed).into_iter().filter(|(run, _)| run == name) {
            if let Some(work) = self.work_mut(name, id) {
                work.phase = Phase::Waiting;
                work.strikes = 0;
            }
        }
        if let Some(head) = self.head_mut(name) {
            head.phase = RunPhase::Active;
            head.ended = None;
        }
    }

    /// Asks every gang of a run to commit and leave.
    pub(super) fn stop_run(&mut self, name: &RunName, then: StopFor) {
        match self.state.runs.get(name).map(|run| &run.head.phase) {
            Some(RunPhase::Active) => (),
            Some(
                RunPhase::Stopping { .. }
                | RunPhase::Finished
                | RunPhase::Failed { .. }
                | RunPhase::Cancelled,
            )
            | None => return,
        }
        if let Some(head) = self.head_mut(name) {
            head.phase = RunPhase::Stopping { then };
        }
        let is_running = |work: &Work| matches!(work.phase, Phase::Running(_));
        for (run, id) in self.works_where(is_running) {
            if run == *name {
                self.stop_gang(&run, id, Stop::RunStopping);
            }
        }
    }

    fn attached(&mut self, id: WorkerId, worker: Worker, ranks: &[LiveRank]) {
        // Ranks of a worker that is not known, or was declared lost, are nobody's; and a worker is
        // one lifetime, in which its slots do not change.
        let is_sound = match self.state.workers.get(&id) {
            Some(known) => known.slots == worker.slots,
            None => ranks.is_empty(),
        };
        if !is_sound {
            self.act(Action::Supersede { worker: id });
            return;
        }
        if self.state.workers.get(&id) != Some(&worker) {
            self.effects.changed.insert(Object::Worker(id.clone()));
            self.state.workers.insert(id.clone(), worker);
        }
        let taken = self.state.taken();
        let here = |seat: &Seat| seat.worker == id;
        for rank in ranks {
            let seat = Seat { worker: id.clone(), slot: rank.slot };
            if taken.get(&seat) != Some(&rank.fence) {
                let (fence, rank) = (rank.fence.clone(), rank.rank);
                self.act(Action::StopRank { seat, fence, rank, save: false });
            }
        }
        // Orders may have been lost with the old stream: say again what should be so.
        for (run, work) in self.works_where(|work| work.gang().is_some()) {
            let Some(found) = self.state.work(&run, work) else { continue };
            let Some(gang) = found.gang() else { continue };
            let fence = Fence { run: run.clone(), work, incarnation: found.incarnation };
            let is_stopping = matches!(found.phase, Phase::Stopping { .. });
            let mut orders = Vec::new();
            for (rank, seat) in gang.alive().filter(|(_, seat)| here(seat)) {
                let seat = seat.clone();
                if is_stopping {
                    let save = self.saves_on_stop(&run, work);
                    orders.push(Action::StopRank { seat, fence: fence.clone(), rank, save });
                } else if let Some(start) = self.start(&run, work, rank, seat) {
                    orders.push(Action::StartRank(start));
                }
            }
            self.effects.actions.extend(orders);
        }
    }

    /// Everything rank `rank` of a seated gang needs.
    pub(super) fn start(&self, run: &RunName, id: WorkId, rank: u32, seat: Seat) -> Option<Start> {
        let run = self.state.runs.get(run)?;
        let work = run.works.get(&id)?;
        let newest =
            |model| Some((model, run.works.get(&WorkId::Model(model))?.committed.last()?.clone()));
        let mut history = work.committed.iter().rev().cloned();
        let gang = id.model().map_or(&run.head.spec.spec.gangs.expert, |it| run.head.spec.gang(it));
        Some(Start {
            seat,
            fence: run.fence(id)?,
            rank,
            ranks: run.ranks(id),
            store: run.head.spec.spec.store.clone(),
            resume: history.next(),
            fallbacks: history.collect(),
            models: run.plan().reads(id).into_iter().filter_map(newest).collect(),
            rendezvous: work.gang().and_then(|gang| gang.rendezvous.clone()),
            grace_ms: gang.grace.millis(),
        })
    }

    fn rendezvous(&mut self, fence: &Fence, address: String) {
        let Some(found) = self.current(fence) else { return };
        let Phase::Running(gang) = &found.phase else { return };
        let workers: BTreeSet<WorkerId> =
            gang.alive().map(|(_, seat)| seat.worker.clone()).collect();
        if let Some(Work { phase: Phase::Running(gang), .. }) =
            self.work_mut(&fence.run, fence.work)
        {
            gang.rendezvous = Some(address.clone());
        }
        for worker in workers {
            let (fence, address) = (fence.clone(), address.clone());
            self.act(Action::ShareRendezvous { worker, fence, address });
        }
    }

    /// The work of `fence` if that is still its incarnation.
    pub(super) fn current(&self, fence: &Fence) -> Option<&Work> {
        self.state.work(&fence.run, fence.work).filter(|work| work.incarnation == fence.incarnation)
    }

    fn committed(&mut self, fence: &Fence, checkpoint: CheckpointRef) -> Result<(), Refusal> {
        let work = self.state.work(&fence.run, fence.work).ok_or(Refusal::Unknown)?;
        if work.incarnation != fence.incarnation {
            return Err(Refusal::Superseded { current: work.incarnation });
        }
        // An acknowledgement was lost and the worker says it again; what is older may have left
        // the kept history since. Within one incarnation steps only grow.
        let own = work.committed.iter().rfind(|it| it.incarnation == fence.incarnation);
        if own.is_some_and(|own| own.step >= checkpoint.step) {
            return Ok(());
        }
        if work.gang().is_none() {
            return Err(Refusal::NotSeated);
        }
        self.record(fence, checkpoint);
        Ok(())
    }

    /// Makes `checkpoint` the newest of its model's history.
    ///
    /// What is not older is dropped: a gang that found the newest one damaged has gone on from
    /// an older one, and only the seated gang's word counts.
    pub(super) fn record(&mut self, fence: &Fence, checkpoint: CheckpointRef) {
        let keep = self
            .state
            .runs
            .get(&fence.run)
            .and_then(|run| usize::try_from(run.head.spec.spec.training.checkpoint.keep).ok())
            .unwrap_or(usize::MAX);
        let Some(work) = self.work_mut(&fence.run, fence.work) else { return };
        let mut dropped: Vec<CheckpointRef> = Vec::new();
        work.committed.retain(|older| {
            let stays = older.step < checkpoint.step;
            if !stays {
                dropped.push(older.clone());
            }
            stays
        });
        work.committed.push(checkpoint);
        work.strikes = 0;
        while work.committed.len() > keep {
            dropped.push(work.committed.remove(0));
        }
        if !dropped.is_empty() {
            self.act(Action::Collect { run: fence.run.clone(), checkpoints: dropped });
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        let is_due = |worker: &Worker| worker.lost_at.is_some_and(|at| at <= now);
        let lost: Vec<WorkerId> = self
            .state
            .workers
            .iter()
            .filter(|(_, worker)| is_due(worker))
            .map(|(id, _)| id.clone())
            .collect();
        for worker in lost {
            self.lost(&worker, false);
        }
        let rested = |work: &Work| matches!(work.phase, Phase::Backoff { until } if until <= now);
        for (run, id) in self.works_where(rested) {
            if let Some(work) = self.work_mut(&run, id) {
                work.phase = Phase::Waiting;
            }
        }
    }

    /// Takes a worker out, and with it every rank that was there.
    fn lost(&mut self, worker: &WorkerId, said_so: bool) {
        if self.state.workers.remove(worker).is_none() {
            return;
        }
        self.effects.changed.insert(Object::Worker(worker.clone()));
        let name = worker.to_string();
        let failure = if said_so {
            Failure::WorkerLeft { worker: name }
        } else {
            Failure::WorkerLost { worker: name }
        };
        for (run, id) in self.works_where(|work| work.gang().is_some()) {
            let Some(fence) = self.state.runs.get(&run).and_then(|run| run.fence(id)) else {
                continue;
            };
            let gang = self.state.work(&run, id).and_then(Work::gang);
            let gone: Vec<u32> = gang
                .into_iter()
                .flat_map(Gang::alive)
                .filter(|(_, seat)| seat.worker == *worker)
                .map(|(rank, _)| rank)
                .collect();
            for rank in gone {
                self.exited(&fence, rank, Outcome::Failed(failure.clone()));
            }
        }
    }
}
