//! Every transaction: what it records, whom it stops and why, whom it lets wait.

use clade_core::ids::{Fence, NodeName, RunName, Seat, Term, WorkId};
use clade_core::schedule::{Effects, Event, Phase, Run, RunPhase, Stop, Trust, Work};
use clade_core::spec::Gang as GangSpec;

use crate::coordinator::Leader;
use crate::setting::EPOCH;
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
                let priority = |name: &RunName| {
                    leader.state.runs.get(name).map(|run| run.head.spec.spec.priority)
                };
                let waits =
                    leader.state.work(by, *work).is_some_and(|it| it.phase == Phase::Waiting);
                priority(by) > priority(&fence.run) && waits
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

    /// Budgets and backoff: a try that failed counts as it should, and the next one waits.
    fn judge_try(
        &self,
        leader: &Leader,
        run: &Run,
        id: WorkId,
        then: &Work,
        now: &Work,
        was_active: bool,
    ) -> Option<String> {
        let (name, gang) = (run.name(), gang_of(run, id));
        let key = (name.clone(), id);
        let time = EPOCH.saturating_add(self.now).saturating_add_signed(leader.offset);
        if let (Phase::Backoff { .. }, Some((since, leaps, rest))) =
            (&then.phase, leader.told.rests.get(&key))
        {
            let rested = (leader.told.ticks - since + 1) * 100;
            let is_early = *leaps == leader.told.leaps && rested + 200 < *rest;
            if is_early && !matches!(now.phase, Phase::Backoff { .. }) {
                return Some(format!("{name}/{id} rested {rested} ms instead of {rest}"));
            }
        }
        // A run that was taken up again has begun to count anew.
        if now.restarts == then.restarts || !was_active {
            return None;
        }
        let failure = now.last_failure.as_ref()?;
        // Where something new was recorded the count begins anew.
        let recorded = now.committed.last() != then.committed.last();
        let before = if recorded { 0 } else { then.strikes };
        let expected = before + u32::from(failure.burns_budget());
        if now.strikes != expected {
            return Some(format!("{name}/{id} has {} strikes, not {expected}", now.strikes));
        }
        let is_over = !failure.may_retry() || now.strikes > gang.restarts;
        let is_fruitless = now.fruitless > gang.fruitless;
        match &now.phase {
            Phase::Failed { .. } if !is_over && !is_fruitless => {
                Some(format!("{name}/{id} was given up after {failure}"))
            }
            Phase::Failed { .. } => None,
            _ if is_over || is_fruitless => Some(format!("{name}/{id} goes on after {failure}")),
            Phase::Backoff { until } => {
                let least = time.min(until.0) + rest(gang, now.strikes);
                let is_short = until.0 < least && time + rest(gang, now.strikes) > until.0;
                is_short.then(|| format!("{name}/{id} rests until {until}, not {least}"))
            }
            Phase::Waiting | Phase::Running(_) if run.head.phase == RunPhase::Active => {
                (now.strikes > 0).then(|| format!("{name}/{id} goes on without a rest"))
            }
            Phase::Waiting
            | Phase::Running(_)
            | Phase::Stopping { .. }
            | Phase::Inspecting { .. }
            | Phase::Done => None,
        }
    }

    /// Where a gang was seated: on one worker if one could hold it, and before whoever is less urgent.
    fn judge_seats(
        &self,
        leader: &Leader,
        run: &Run,
        id: WorkId,
        then: &Work,
        now: &Work,
    ) -> Option<String> {
        let Phase::Running(gang) = &now.phase else { return None };
        if matches!(then.phase, Phase::Running(_)) {
            return None;
        }
        let state = &leader.state;
        let requires = run.requires(id);
        let name = run.name();
        let is_one = gang.seats.iter().all(|seat| seat.worker == gang.seats[0].worker);
        let ranks = gang.seats.len();
        let is_slow = |node: &NodeName| {
            now.avoid.as_ref() == Some(node)
                || state.nodes.get(node).is_some_and(|it| {
                    it.slower_percent.is_some() || it.trust != Trust::Full || it.cordoned.is_some()
                })
        };
        // Seats of another kind may be kept for whoever goes first there.
        let kind = state.workers.get(&gang.seats[0].worker).map(|it| &it.offer.kind);
        let could = state.workers.iter().find(|(worker, it)| {
            let usable = usize::try_from(it.usable()).unwrap_or(0);
            let free = usable.saturating_sub(state.busy(worker));
            it.lost_at.is_none()
                && Some(&it.offer.kind) == kind
                && requires.accepts(&it.offer)
                && !is_slow(&it.offer.node)
                && free >= ranks
        });
        if let Some((worker, _)) = could.filter(|_| !is_one) {
            return Some(format!("{name}/{id} is spread although {worker} could hold it"));
        }
        let priority = run.head.spec.spec.priority;
        let offer = |seat: &Seat| state.workers.get(&seat.worker).map(|it| &it.offer);
        for (other, waiting) in &state.runs {
            if waiting.head.spec.spec.priority <= priority || waiting.head.phase != RunPhase::Active
            {
                continue;
            }
            let jobs = waiting
                .works
                .iter()
                .filter(|(it, work)| it.model().is_none() && work.phase == Phase::Waiting);
            for (job, _) in jobs {
                let fits = gang
                    .seats
                    .iter()
                    .filter_map(offer)
                    .any(|it| waiting.requires(*job).accepts(it));
                if fits && state.missing(other, *job).is_empty() {
                    return Some(format!("{name}/{id} was seated before {other}/{job}"));
                }
            }
        }
        None
    }

    /// A worker is taken out only if it said so or was away for long enough.
    fn judge_workers(&self, leader: &Leader, effects: &Effects) -> Option<String> {
        let limits = &self.setting.limits;
        let lost = effects.before.workers.iter().find(|(id, before)| {
            let is_out = before.is_some() && !leader.state.workers.contains_key(*id);
            is_out && !leader.told.may_be_lost(id, limits.reattach.0, limits.takeover.0)
        });
        lost.map(|(id, _)| format!("G6: {id} was declared lost too early"))
    }

    /// Quarantines are for nodes with a bad record, and for few.
    fn judge_nodes(&self, leader: &Leader, effects: &Effects) -> Option<String> {
        let state = &leader.state;
        for (name, before) in &effects.before.nodes {
            let Some(node) = state.nodes.get(name) else { continue };
            let Trust::Quarantined { until } = node.trust else { continue };
            if let Trust::Quarantined { until: old } = before.trust {
                // A new leader shortens what was written by a clock that was ahead; nothing begins.
                if until > old {
                    return Some(format!(
                        "{name} is to stay in quarantine until {until}, not {old}"
                    ));
                }
                continue;
            }
            let blamed: u32 = before.blame.values().sum();
            let lost = effects.before.workers.values().flatten();
            let lost = lost.filter(|it| it.offer.node == *name).count();
            // Gangs that this event ended, and that had failed here.
            let ended = effects.before.works.iter().filter(|((run, id), then)| {
                let now = state.work(run, *id);
                then.gang().is_some()
                    && now.is_some_and(|it| it.gang().is_none() && it.avoid.as_ref() == Some(name))
            });
            let blamed = blamed + u32::try_from(lost + ended.count()).unwrap_or(u32::MAX);
            if before.trust == Trust::Full && blamed < 3 {
                return Some(format!("{name} is in quarantine after {blamed} failures"));
            }
            let nodes = state.workers.values().map(|it| &it.offer.node);
            let nodes = nodes.collect::<std::collections::BTreeSet<_>>().len();
            let is_away =
                |it: &clade_core::schedule::Node| matches!(it.trust, Trust::Quarantined { .. });
            let away = state.nodes.iter().filter(|(_, it)| is_away(it));
            let gone = effects.before.workers.values().filter(|it| it.is_some()).count();
            if away.clone().count() * 4 > nodes + gone {
                let away: Vec<&NodeName> = away.map(|(name, _)| name).collect();
                return Some(format!("of {nodes} nodes {away:?} are in quarantine"));
            }
            let time = EPOCH.saturating_add(self.now).saturating_add_signed(leader.offset);
            if until.0 < time + self.setting.limits.quarantine.0 {
                return Some(format!("{name} is in quarantine for too short a time"));
            }
        }
        None
    }
}

fn gang_of(run: &Run, id: WorkId) -> &GangSpec {
    id.model().map_or(&run.head.spec.spec.gangs.expert, |model| run.head.spec.gang(model))
}

/// How long a work rests after so many strikes.
fn rest(gang: &GangSpec, strikes: u32) -> u64 {
    let doubled = (1..strikes).fold(gang.backoff.from.millis(), |rest, _| rest.saturating_mul(2));
    doubled.min(gang.backoff.to.millis())
}
