//! How workers come and go, and what operators and devices say about them.

use std::collections::BTreeMap;

use super::step::Stepper;
use super::{Action, LiveRank, Object, Offer, Phase, Refusal, Requires, Stop, Worker};
use crate::ids::{Fence, Millis, NodeName, RunName, Seat, WorkId, WorkerId};
use crate::job::{Failure, Outcome};

impl Worker {
    /// Slots that may be used.
    pub fn usable(&self) -> u32 {
        let withdrawn = self.withdrawn.keys().filter(|slot| **slot < self.offer.slots).count();
        self.offer.slots.saturating_sub(u32::try_from(withdrawn).unwrap_or(u32::MAX))
    }
}

impl Requires {
    /// Whether devices of this name will do.
    pub fn accepts_kind(&self, kind: &str) -> bool {
        let contains = |part: &String| kind.to_lowercase().contains(&part.to_lowercase());
        self.gpu.as_ref().is_none_or(contains)
    }

    /// Whether the seats of such a worker will do.
    pub fn accepts(&self, offer: &Offer) -> bool {
        self.accepts_kind(&offer.kind)
            && self.memory_gib.is_none_or(|gib| u64::from(gib) * 1024 <= offer.memory_mib)
            && self.labels.iter().all(|(key, value)| offer.labels.get(key) == Some(value))
    }
}

impl Stepper<'_> {
    pub(super) fn attached(
        &mut self,
        id: WorkerId,
        offer: Offer,
        withdrawn: BTreeMap<u32, String>,
        ranks: &[LiveRank],
    ) -> Result<(), Refusal> {
        let Some(known) = self.state.workers.get(&id) else {
            // Ranks of a worker that is not known, or was declared lost, are nobody's.
            if !ranks.is_empty() {
                self.act(Action::Supersede { worker: id });
                return Ok(());
            }
            let worker = Worker { offer, withdrawn, ..Worker::default() };
            self.state.index.joined(&id, &worker);
            self.effects.before.workers.insert(id.clone(), None);
            self.effects.changed.insert(Object::Worker(id.clone()));
            self.state.workers.insert(id.clone(), worker);
            self.refresh(&id);
            return Ok(());
        };
        // A worker is one lifetime, in which what it offers does not change.
        if known.offer != offer {
            return Err(Refusal::WorkerChanged);
        }
        if known.said_goodbye {
            self.act(Action::Supersede { worker: id });
            return Ok(());
        }
        self.hang_up(&id, None);
        let news = withdrawn.into_iter().filter(|(slot, _)| {
            self.state.workers.get(&id).is_some_and(|it| !it.withdrawn.contains_key(slot))
        });
        let news: BTreeMap<u32, String> = news.collect();
        self.withdrawn(&id, news)?;
        self.reconcile(&id, ranks);
        Ok(())
    }

    /// Orders may have been lost with the old stream: says again what should be so.
    fn reconcile(&mut self, id: &WorkerId, ranks: &[LiveRank]) {
        let seated: BTreeMap<u32, (RunName, WorkId)> = self
            .state
            .index
            .seated(id)
            .map(|(slot, run, work)| (slot, (run.clone(), work)))
            .collect();
        for LiveRank { fence, rank, slot } in ranks {
            let is_known = seated.get(slot).is_some_and(|(run, work)| {
                let now = self.state.runs.get(run).and_then(|run| run.fence(*work));
                now.as_ref() == Some(fence)
            });
            if !is_known {
                let seat = Seat { worker: id.clone(), slot: *slot };
                let (fence, rank) = (fence.clone(), *rank);
                self.act(Action::StopRank { seat, fence, rank, save: false, tell: false });
            }
        }
        for (slot, (run, work)) in seated {
            let seat = Seat { worker: id.clone(), slot };
            let Some(found) = self.state.work(&run, work) else { continue };
            let Some(gang) = found.gang() else { continue };
            let Some(rank) = gang.alive().find(|(_, it)| **it == seat).map(|(rank, _)| rank) else {
                continue;
            };
            let fence = Fence { run: run.clone(), work, incarnation: found.incarnation };
            if matches!(found.phase, Phase::Stopping { .. }) {
                let save = self.saves_on_stop(&run, work);
                let tell = self.hangs(&run, work);
                self.act(Action::StopRank { seat, fence, rank, save, tell });
            } else {
                self.excuse(&run, work);
                if let Some(start) = self.start(&run, work, rank, seat) {
                    self.act(Action::StartRank(start));
                }
            }
        }
    }

    pub(super) fn detached(&mut self, id: &WorkerId) {
        let lost_at = Millis(self.now.0 + self.limits.reattach.0);
        if self.state.workers.get(id).is_some_and(|it| it.lost_at.is_none()) {
            self.hang_up(id, Some(lost_at));
        }
    }

    /// Sets when a worker without a stream is judged lost; nothing if it has one.
    pub(super) fn hang_up(&mut self, id: &WorkerId, lost_at: Option<Millis>) {
        let state = &mut *self.state;
        let Some(worker) = state.workers.get_mut(id) else { return };
        let absence = (worker.lost_at, worker.said_goodbye);
        self.effects.before.absences.entry(id.clone()).or_insert(absence);
        if let Some(at) = worker.lost_at {
            state.index.losses.remove(&(at, id.clone()));
        }
        worker.lost_at = lost_at;
        if let Some(at) = lost_at {
            state.index.losses.insert((at, id.clone()));
        }
        self.refresh(id);
    }

    pub(super) fn left(&mut self, id: &WorkerId) {
        let now = self.now;
        self.hang_up(id, Some(now));
        if let Some(worker) = self.state.workers.get_mut(id) {
            worker.said_goodbye = true;
        }
    }

    /// Takes out the workers whose time is over, and with each every rank that was there.
    pub(super) fn lose_due_workers(&mut self) {
        while let Some((at, worker)) = self.state.index.losses.first().cloned() {
            if at > self.now {
                return;
            }
            if !self.has_room() || !self.lose(&worker) {
                self.effects.more = true;
                return;
            }
        }
    }

    /// Ends the ranks at a worker, and takes it out once none is left. Returns whether it is out.
    fn lose(&mut self, id: &WorkerId) -> bool {
        let Some(worker) = self.state.workers.get(id) else { return true };
        let name = id.to_string();
        let failure = if worker.said_goodbye {
            Failure::WorkerLeft { worker: name }
        } else {
            Failure::WorkerLost { worker: name }
        };
        let seated = self.state.index.seated(id);
        let seated: Vec<(u32, RunName, WorkId)> =
            seated.map(|(slot, run, work)| (slot, run.clone(), work)).collect();
        let mut last = None;
        for (slot, run, work) in seated {
            if !self.has_room() {
                return false;
            }
            let seat = Seat { worker: id.clone(), slot };
            let Some(fence) = self.state.runs.get(&run).and_then(|run| run.fence(work)) else {
                continue;
            };
            let gang = self.state.work(&run, work).and_then(super::Work::gang);
            let rank = gang.and_then(|gang| gang.alive().find(|(_, it)| **it == seat));
            if let Some(rank) = rank.map(|(rank, _)| rank) {
                self.gone(&fence, rank, Outcome::Failed(failure.clone()));
                last = Some(fence);
            }
        }
        // One machine was lost once, however many ranks it had and in however many parts they went:
        // the last part always holds one of them.
        if let (Some(fence), Some(node)) = (last, self.state.node_of(id).cloned()) {
            self.blame(&node, &fence, &failure);
        }
        if let Some(worker) = self.state.workers.remove(id) {
            self.state.index.parted(id, &worker);
            self.refresh(id);
            self.effects.changed.insert(Object::Worker(id.clone()));
            self.effects.before.workers.entry(id.clone()).or_insert(Some(worker));
        }
        true
    }

    /// Takes seats out of use; [`Self::leave_withdrawn_seats`] asks whoever sits there to leave.
    pub(super) fn withdrawn(
        &mut self,
        id: &WorkerId,
        slots: BTreeMap<u32, String>,
    ) -> Result<(), Refusal> {
        let state = &mut *self.state;
        let Some(worker) = state.workers.get_mut(id) else { return Err(Refusal::UnknownWorker) };
        let news = slots
            .into_iter()
            .filter(|(slot, _)| *slot < worker.offer.slots && !worker.withdrawn.contains_key(slot));
        let news: BTreeMap<u32, String> = news.collect();
        if news.is_empty() {
            return Ok(());
        }
        let before = worker.clone();
        state.index.parted(id, &before);
        worker.withdrawn.extend(news);
        state.index.joined(id, worker);
        self.effects.changed.insert(Object::Worker(id.clone()));
        self.effects.before.workers.entry(id.clone()).or_insert(Some(before));
        self.refresh(id);
        Ok(())
    }

    /// Asks what sits on withdrawn devices to save and leave, as much as fits.
    pub(super) fn leave_withdrawn_seats(&mut self) {
        let worn: Vec<WorkerId> = self.state.index.worn.iter().cloned().collect();
        for id in worn {
            let Some(worker) = self.state.workers.get(&id) else { continue };
            let seated = self.state.index.seated(&id);
            let seated = seated.filter(|(slot, ..)| worker.withdrawn.contains_key(slot));
            let seated: Vec<(u32, RunName, WorkId)> =
                seated.map(|(slot, run, work)| (slot, run.clone(), work)).collect();
            for (slot, run, work) in seated {
                let found = self.state.work(&run, work);
                if !found.is_some_and(|it| matches!(it.phase, Phase::Running(_))) {
                    continue;
                }
                if !self.has_room() {
                    self.effects.more = true;
                    return;
                }
                let seat = Seat { worker: id.clone(), slot };
                self.stop_gang(&run, work, Stop::DeviceWithdrawn { seat });
            }
        }
    }

    fn is_known(&self, node: &NodeName) -> bool {
        self.state.index.workers_at(node).next().is_some() || self.state.nodes.contains_key(node)
    }

    pub(super) fn cordon(
        &mut self,
        node: &NodeName,
        reason: String,
        drain: bool,
    ) -> Result<(), Refusal> {
        if !self.is_known(node) {
            return Err(Refusal::UnknownNode { node: node.clone() });
        }
        self.change_node(node, |node| {
            node.cordoned = Some(reason);
            node.draining |= drain;
        });
        Ok(())
    }

    /// Lets a node have work again, whatever kept it from it.
    pub(super) fn uncordon(&mut self, node: &NodeName) -> Result<(), Refusal> {
        if !self.is_known(node) {
            return Err(Refusal::UnknownNode { node: node.clone() });
        }
        self.change_node(node, |node| *node = super::Node::default());
        Ok(())
    }

    /// Asks what sits on draining nodes to save and leave, as much as fits.
    pub(super) fn leave_draining_nodes(&mut self) {
        let nodes: Vec<NodeName> = self.state.index.draining.iter().cloned().collect();
        for node in nodes {
            let index = &self.state.index;
            let seated = index.workers_at(&node).flat_map(|id| index.seated(id));
            let seated: Vec<(RunName, WorkId)> =
                seated.map(|(_, run, work)| (run.clone(), work)).collect();
            for (run, work) in seated {
                let found = self.state.work(&run, work);
                if !found.is_some_and(|it| matches!(it.phase, Phase::Running(_))) {
                    continue;
                }
                if !self.has_room() {
                    self.effects.more = true;
                    return;
                }
                self.stop_gang(&run, work, Stop::Drained { node: node.clone() });
            }
        }
    }
}
