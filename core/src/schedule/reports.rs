//! What ranks report, and who may report it: a fence that is current, from the worker of that seat.

use std::collections::BTreeSet;

use super::step::Stepper;
use super::{Action, Phase, Refusal, Start, Work};
use crate::ids::{CheckpointRef, Fence, RunName, Seat, WorkId, WorkerId};
use crate::job::Outcome;
use crate::rendezvous::Rendezvous;

impl Stepper<'_> {
    /// The work of `fence`, if that is its incarnation now.
    pub(super) fn current(&self, fence: &Fence) -> Result<&Work, Refusal> {
        let work = self.state.work(&fence.run, fence.work).ok_or(Refusal::UnknownWork)?;
        let current = work.incarnation;
        if fence.incarnation < current {
            return Err(Refusal::Superseded { current });
        }
        if fence.incarnation > current {
            return Err(Refusal::NeverStarted { current });
        }
        Ok(work)
    }

    /// Whether `worker` may speak for a rank: it must sit there, now or until it went.
    pub(super) fn check_speaker(
        &self,
        worker: &WorkerId,
        fence: &Fence,
        rank: u32,
    ) -> Result<(), Refusal> {
        if !self.state.workers.contains_key(worker) {
            return Err(Refusal::UnknownWorker);
        }
        let gang = self.current(fence)?.gang().ok_or(Refusal::NotSeated)?;
        let seat = usize::try_from(rank).ok().and_then(|rank| gang.seats.get(rank));
        match seat {
            Some(seat) if seat.worker == *worker => Ok(()),
            Some(seat) => Err(Refusal::NotYours { seat: seat.clone() }),
            None => Err(Refusal::NotSeated),
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
        let stated = run.head.spec.spec.training.checkpoint.failures_per_day;
        Some(Start {
            seat,
            fence: run.fence(id)?,
            rank,
            ranks: u32::try_from(work.gang().map_or(0, |gang| gang.seats.len())).unwrap_or(0),
            store: run.head.spec.spec.store.clone(),
            resume: history.next(),
            fallbacks: history.collect(),
            models: run.plan().reads(id).into_iter().filter_map(newest).collect(),
            rendezvous: work.gang().and_then(|gang| gang.rendezvous.clone()),
            grace_ms: gang.grace.millis(),
            between_failures: self.state.failures.between(self.now, stated.0),
        })
    }

    pub(super) fn rendezvous(
        &mut self,
        worker: &WorkerId,
        fence: &Fence,
        address: Rendezvous,
    ) -> Result<(), Refusal> {
        self.check_speaker(worker, fence, 0)?;
        let Phase::Running(gang) = &self.current(fence)?.phase else { return Ok(()) };
        let workers: BTreeSet<WorkerId> =
            gang.alive().map(|(_, seat)| seat.worker.clone()).collect();
        self.change(&fence.run, fence.work, |work| {
            if let Some(gang) = work.gang_mut() {
                gang.rendezvous = Some(address.clone());
            }
        });
        for worker in workers {
            let (fence, address) = (fence.clone(), address.clone());
            self.act(Action::ShareRendezvous { worker, fence, address });
        }
        Ok(())
    }

    pub(super) fn committed(
        &mut self,
        worker: &WorkerId,
        fence: &Fence,
        checkpoint: CheckpointRef,
    ) -> Result<(), Refusal> {
        let work = self.current(fence)?;
        if checkpoint.incarnation != fence.incarnation
            || Some(checkpoint.model) != fence.work.model()
        {
            return Err(Refusal::UnknownWork);
        }
        // An acknowledgement was lost and the worker says it again; what is older may have left
        // the kept history since. Within one incarnation steps only grow.
        let own = work.committed.iter().rfind(|it| it.incarnation == fence.incarnation);
        let is_known = own.is_some_and(|own| own.step >= checkpoint.step);
        match self.check_speaker(worker, fence, 0) {
            Ok(()) if is_known => return Ok(()),
            // Said again by the last rank's agent after its gang had ended.
            Err(Refusal::NotSeated) if is_known => return Ok(()),
            Ok(()) => (),
            Err(why) => return Err(why),
        }
        let due = self.state.runs.get(&fence.run).map(|run| run.due(checkpoint.model));
        if let Some(due) = due.filter(|due| *due < checkpoint.step) {
            return Err(Refusal::BeyondDue { due });
        }
        self.record(fence, checkpoint);
        self.excuse(&fence.run, fence.work);
        self.praise(&fence.run, fence.work);
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
        let seen = self.state.seen.get(&(fence.run.clone(), fence.work));
        let run = self.state.runs.get(&fence.run);
        let pace = seen.and_then(super::progress::Seen::pace);
        let pace = pace.zip(run).map(|(pace, run)| run.shrunk(fence.work, pace));
        let dropped = self.change(&fence.run, fence.work, |work| {
            work.pace = pace.or(work.pace);
            let mut dropped: Vec<CheckpointRef> = Vec::new();
            work.committed.retain(|older| {
                let stays = older.step < checkpoint.step;
                if !stays {
                    dropped.push(older.clone());
                }
                stays
            });
            work.committed.push(checkpoint);
            (work.strikes, work.fruitless) = (0, 0);
            while work.committed.len() > keep {
                dropped.push(work.committed.remove(0));
            }
            dropped
        });
        if let Some(checkpoints) = dropped.filter(|dropped| !dropped.is_empty()) {
            self.act(Action::Collect { run: fence.run.clone(), checkpoints });
        }
    }

    pub(super) fn rank_exited(
        &mut self,
        worker: &WorkerId,
        fence: &Fence,
        rank: u32,
        outcome: Outcome,
    ) -> Result<(), Refusal> {
        self.check_speaker(worker, fence, rank)?;
        self.gone(fence, rank, outcome);
        Ok(())
    }
}
