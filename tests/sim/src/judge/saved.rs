//! Every transaction: what it records, whom it stops and why, whom it lets wait.

use clade_core::ids::{Fence, NodeName, RunName, Seat, Term, WorkId};
use clade_core::schedule::{Effects, Event, Limits, Phase, RunPhase, Stop, Work};

use super::tries::{gang_of, rest};
use crate::coordinator::Leader;
use crate::world::World;

impl World {
    /// Judges what was just saved.
    pub(crate) fn judge_saved(&mut self, term: Term, event: &Event, effects: &Effects) {
        let mut broken = Vec::new();
        for ((name, id), then) in &effects.before.works {
            let Some(leader) = self.leaders.get(&term) else { return };
            let Some(run) = leader.state.runs.get(name) else { continue };
            let Some(now) = run.works.get(id) else { continue };
            let fence = Fence { run: name.clone(), work: *id, incarnation: then.incarnation };
            broken.extend(self.judge_stop(leader, event, effects, &fence, then, now));
            broken.extend(judge_fence(&fence, then, now));
            broken.extend(self.judge_freed(event, &fence, then, now));
            let was_active = !effects.before.phases.contains_key(name);
            broken.extend(self.judge_try(leader, run, *id, then, now, was_active));
            broken.extend(self.judge_seats(leader, run, *id, then, now));
            broken.extend(self.judge_inspection(event, &fence, then, now));
            broken.extend(self.judge_record(&fence, then, now));
            self.note_record(&fence, term);
        }
        let Some(leader) = self.leaders.get(&term) else { return };
        broken.extend(self.judge_workers(leader, effects));
        broken.extend(self.judge_nodes(leader, effects));
        self.note_nodes(term, effects);
        for what in broken {
            self.broke(what);
        }
    }

    fn note_record(&mut self, fence: &Fence, term: Term) {
        let Some(model) = fence.work.model() else { return };
        let Some(leader) = self.leaders.get_mut(&term) else { return };
        let key = (fence.run.clone(), fence.work);
        if let Some(work) = leader.state.work(&fence.run, fence.work) {
            if let Phase::Backoff { .. } = work.phase {
                let gang = gang_of(&leader.state.runs[&fence.run], fence.work);
                let rest = rest(gang, work.strikes);
                let (ticks, leaps) = (leader.told.ticks, leader.told.leaps);
                leader.told.rests.entry(key).or_insert((ticks, leaps, rest));
            } else {
                leader.told.rests.remove(&key);
            }
            if let Some(newest) = work.committed.last() {
                let records = self.judge.records.entry((fence.run.clone(), model)).or_default();
                if records.last() != Some(newest) {
                    records.push(newest.clone());
                }
            }
        }
    }

    /// G2 and G4: what is recorded was written by the incarnation that is open, and follows what was
    /// recorded before it.
    fn judge_record(&self, fence: &Fence, then: &Work, now: &Work) -> Option<String> {
        let newest = now.committed.last()?;
        if then.committed.last() == Some(newest) {
            return None;
        }
        if then.phase == Phase::Waiting {
            return Some(format!("G2: {fence} was not seated, and {newest} is recorded"));
        }
        if newest.incarnation != fence.incarnation {
            return Some(format!("G2: {newest} is recorded under {fence}"));
        }
        let key = (fence.run.clone(), fence.work);
        if self.judge.newest.get(&key).is_some_and(|it| *it > newest.incarnation) {
            return Some(format!("G2: {newest} is recorded after a newer gang was started"));
        }
        if self.bucket.find(&fence.run, newest).is_none_or(|it| it.is_deleted) {
            return Some(format!("G3: {newest} is recorded, and nobody wrote it"));
        }
        // Only damaged ones may be passed over; the rest must lie on the parents' chain.
        let chain: Vec<_> =
            self.bucket.chain(&fence.run, newest).map(|it| &it.checkpoint).collect();
        let is_sound = |at: &&clade_core::ids::CheckpointRef| {
            self.bucket.find(&fence.run, at).is_some_and(|it| !it.is_damaged)
        };
        let last = then.committed.iter().rfind(is_sound);
        if let Some(last) = last.filter(|last| !chain.contains(last)) {
            return Some(format!("G4: {newest} does not follow {last}"));
        }
        let kept = now.committed.iter().filter(is_sound).find(|at| !chain.contains(at));
        kept.map(|at| format!("G4: {at} is kept although {newest} does not follow it"))
    }

    /// What an inspection found is recorded in the transaction that closes the incarnation.
    fn judge_inspection(
        &self,
        event: &Event,
        fence: &Fence,
        then: &Work,
        now: &Work,
    ) -> Option<String> {
        let Event::Inspected { fence: of, newest } = event else { return None };
        let was_open = matches!(then.phase, Phase::Inspecting { .. });
        let is_closed = !matches!(now.phase, Phase::Inspecting { .. });
        if of != fence || !was_open || !is_closed {
            return None;
        }
        let newest = newest.as_ref()?;
        let is_recorded = now.committed.iter().any(|at| {
            at.incarnation > newest.incarnation
                || at.incarnation == newest.incarnation && at.step >= newest.step
        });
        (!is_recorded).then(|| format!("G4: {newest} was found and is not recorded"))
    }

    /// G6: a gang stops only for what really happened to it.
    fn judge_stop(
        &self,
        leader: &Leader,
        event: &Event,
        effects: &Effects,
        fence: &Fence,
        then: &Work,
        now: &Work,
    ) -> Option<String> {
        let Phase::Running(gang) = &then.phase else { return None };
        let cause = match &now.phase {
            Phase::Running(_) => return None,
            Phase::Stopping { cause, .. } => cause,
            Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Inspecting { .. }
            | Phase::Done
            | Phase::Failed { .. } => &Stop::RankGone,
        };
        let limits = &self.setting.limits;
        let may_be_lost = |seat: &Seat| {
            leader.told.may_be_lost(&seat.worker, limits.reattach.0, limits.takeover.0)
        };
        let has_seat = |is_there: &dyn Fn(&Seat) -> bool| gang.seats.iter().any(is_there);
        let is_just = match cause {
            Stop::RankGone => {
                let is_own = matches!(event, Event::RankExited { fence: of, .. } if of == fence);
                is_own || has_seat(&may_be_lost)
            }
            Stop::RunStopping => {
                let phase = leader.state.runs.get(&fence.run).map(|run| &run.head.phase);
                !matches!(phase, Some(RunPhase::Active | RunPhase::Finished) | None)
            }
            Stop::Preempted { by, work } => {
                self.may_be_preempted(leader, event, fence, then, (by, *work))
            }
            Stop::Drained { node } => {
                self.judge.drained.contains(node)
                    && has_seat(&|seat| self.node_of(leader, effects, seat) == Some(node.clone()))
            }
            Stop::DeviceWithdrawn { seat } => self.agents.iter().any(|agent| {
                agent.withdrawn.contains_key(&seat.slot)
                    && self.machines[agent.machine].node()
                        == &self.node_of(leader, effects, seat).unwrap_or_default()
            }),
            Stop::Widened { to } => {
                let run = leader.state.runs.get(&fence.run);
                let model = fence.work.model();
                let has_saved = then.committed.iter().any(|it| it.incarnation == fence.incarnation);
                run.zip(model).is_some_and(|(run, model)| {
                    let is_more = u32::try_from(gang.seats.len()).is_ok_and(|ranks| ranks < *to);
                    is_more && run.head.spec.may_have(model, *to) && has_saved
                })
            }
            Stop::Hung { .. } => {
                let (since, step) = leader.told.steps.get(fence).copied().unwrap_or_default();
                let patience = if step == 0 { limits.first_step.0 } else { limits.hang.0 };
                // Who has ended may be away: nothing more is to be heard of it.
                let is_away = gang.alive().any(|(_, seat)| {
                    leader.state.workers.get(&seat.worker).is_none_or(|it| it.lost_at.is_some())
                });
                // A clock that leapt by less than two seconds goes unnoticed.
                leader.told.ticks - since + 21 >= patience.min(limits.hang.0) / 100 && !is_away
            }
        };
        (!is_just).then(|| format!("G6: {fence} was stopped for nothing: {cause:?}"))
    }

    /// For a more urgent work; or, where gangs may make way at all, for an equal model that has failed at
    /// nothing and is behind, by a gang that has saved something since it was started.
    fn may_be_preempted(
        &self,
        leader: &Leader,
        event: &Event,
        fence: &Fence,
        then: &Work,
        (by, work): (&RunName, WorkId),
    ) -> bool {
        let (Some(run), Some(own)) = (leader.state.runs.get(by), leader.state.runs.get(&fence.run))
        else {
            return false;
        };
        let Some(waiting) = run.works.get(&work).filter(|it| it.phase == Phase::Waiting) else {
            return false;
        };
        if run.head.spec.spec.priority > own.head.spec.spec.priority {
            return true;
        }
        let may_make_way = self.setting.limits.way < Limits::default().way;
        let is_equal = run.head.spec.spec.priority == own.head.spec.spec.priority;
        let (Some(model), Some(own_model)) = (work.model(), fence.work.model()) else {
            return false;
        };
        let steps = |fence: &Fence, model, saved: u64| self.due(fence, model).saturating_sub(saved);
        let theirs = Fence { run: by.clone(), work, incarnation: waiting.incarnation };
        let is_ahead = steps(fence, own_model, then.committed_step().0)
            < steps(&theirs, model, waiting.committed_step().0);
        let has_saved = then.committed.last().is_some_and(|it| it.incarnation == then.incarnation);
        may_make_way
            && is_equal
            && *event == Event::Tick
            && waiting.fruitless == 0
            && has_saved
            // Steps of different runs take different time.
            && (is_ahead || *by != fence.run)
    }

    fn node_of(&self, leader: &Leader, effects: &Effects, seat: &Seat) -> Option<NodeName> {
        let gone = effects.before.workers.get(&seat.worker).and_then(Option::as_ref);
        let worker = leader.state.workers.get(&seat.worker).or(gone)?;
        Some(worker.offer.node.clone())
    }

    /// G1: a seat that is freed by word holds no process any more.
    fn judge_freed(&self, event: &Event, fence: &Fence, then: &Work, now: &Work) -> Option<String> {
        let Event::RankExited { fence: of, rank, .. } = event else { return None };
        let was = then.gang()?.alive().any(|(it, _)| it == *rank);
        let is = now.incarnation == then.incarnation
            && now.gang().is_some_and(|gang| gang.alive().any(|(it, _)| it == *rank));
        let lives = self.gangs.get(of).is_some_and(|gang| gang.members.contains_key(rank));
        (of == fence && was && !is && lives)
            .then(|| format!("G1: the seat of {fence} rank {rank} is freed while it lives"))
    }
}

/// G2: an incarnation is closed by whatever ends its gang before the work is done.
fn judge_fence(fence: &Fence, then: &Work, now: &Work) -> Option<String> {
    let is_over = then.is_under_way() && !now.is_under_way() && now.phase != Phase::Done;
    (is_over && now.incarnation <= then.incarnation)
        .then(|| format!("G2: {fence} has ended, and its incarnation is still open"))
}
