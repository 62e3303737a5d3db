//! What can be derived from the rest of the state, kept so that no event costs more than it changes.
//!
//! [`Index::of`] builds it from nothing; a property test holds it against what was kept up to date.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::pool::{Place, Pools};
use super::state::{Node, Phase, Run, RunPhase, State, Trust, Work, Worker};
use crate::ids::{JobId, Millis, NodeName, RunName, Seat, Stage, WorkId, WorkerId};
use crate::spec::Requires;

/// Microseconds that a step is taken to last in a run that has not shown its pace.
pub(super) const PACE: u64 = 1_000_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    taken: BTreeMap<WorkerId, BTreeMap<u32, (RunName, WorkId)>>,
    at_node: BTreeMap<NodeName, BTreeSet<WorkerId>>,
    /// Usable slots of all known workers, by kind of device.
    capacity: BTreeMap<String, u32>,
    pub(super) pools: Pools,
    /// Jobs that could start.
    pub(super) jobs: BTreeMap<JobQueue, BTreeSet<WorkId>>,
    /// Models that could start, first to go first.
    pub(super) models: BTreeSet<ReadyModel>,
    keys: BTreeMap<(RunName, WorkId), ReadyModel>,
    /// Ends of backoffs.
    pub(super) rests: BTreeSet<(Millis, RunName, WorkId)>,
    /// When workers without a stream are judged lost.
    pub(super) losses: BTreeSet<(Millis, WorkerId)>,
    /// When gangs without a step are judged hung.
    pub(super) hangs: BTreeSet<(Millis, RunName, WorkId)>,
    /// Ends of quarantines.
    pub(super) quarantines: BTreeSet<(Millis, NodeName)>,
    pub(super) draining: BTreeSet<NodeName>,
    /// Workers that have withdrawn slots.
    pub(super) worn: BTreeSet<WorkerId>,
    pub(super) stopping: BTreeSet<RunName>,
    runs: BTreeMap<RunName, Facts>,
}

/// The pace at which the models of a run have saved: the median.
fn shown(run: &Run) -> Option<u64> {
    let mut paces: Vec<u64> = run.works.values().filter_map(|work| work.pace).collect();
    paces.sort_unstable();
    paces.get(paces.len() / 2).copied()
}

/// The jobs of one run: they share a priority and what they require.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobQueue {
    pub(super) priority: Reverse<i32>,
    created: Millis,
    pub(super) run: RunName,
}

/// A model that could start if there were seats for it; ordered by who goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReadyModel {
    pub(super) priority: Reverse<i32>,
    /// Time left to it in microseconds, as far as it can be told: most left goes first, so that the
    /// last to finish started early.
    pub(super) left: Reverse<u64>,
    created: Millis,
    pub(super) run: RunName,
    pub(super) work: WorkId,
}

/// Counts over the works of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// Jobs not done, by stage; stages that are done are left out.
    pub(super) open: BTreeMap<Stage, u32>,
    pub(super) undone: u32,
    pub(super) running: BTreeSet<WorkId>,
    pub(super) stopping: BTreeSet<WorkId>,
    pub(super) under_way: u32,
    pub(super) resting: u32,
    pub(super) failed: BTreeSet<WorkId>,
    /// Microseconds per step, as the run's models have shown.
    pub(super) pace: Option<u64>,
}

impl Index {
    /// Builds the index of a whole state.
    pub(super) fn of(state: &State) -> Self {
        let mut index = Self::default();
        for (id, worker) in &state.workers {
            index.joined(id, worker);
        }
        for (name, node) in &state.nodes {
            index.judged(name, node);
        }
        for (name, run) in &state.runs {
            let pace = state.index.runs.get(name).and_then(|facts| facts.pace);
            index.applied(run, pace.or_else(|| shown(run)));
            for (&id, work) in &run.works {
                for (_, seat) in work.gang().into_iter().flat_map(super::Gang::alive) {
                    index.sit(seat, name, id);
                }
            }
        }
        for id in state.workers.keys() {
            index.refresh(&state.workers, &state.nodes, id);
        }
        for ((run, id), seen) in &state.seen {
            index.hangs.insert((seen.deadline, run.clone(), *id));
        }
        index
    }

    pub(super) fn run(&self, run: &RunName) -> Option<&Facts> {
        self.runs.get(run)
    }

    pub(super) fn taken(&self) -> impl Iterator<Item = (Seat, &RunName, WorkId)> {
        self.taken.iter().flat_map(|(worker, slots)| {
            slots
                .iter()
                .map(|(&slot, (run, work))| (Seat { worker: worker.clone(), slot }, run, *work))
        })
    }

    pub(super) fn busy(&self, worker: &WorkerId) -> usize {
        self.taken.get(worker).map_or(0, BTreeMap::len)
    }

    /// Who sits at a worker.
    pub(super) fn seated(
        &self,
        worker: &WorkerId,
    ) -> impl Iterator<Item = (u32, &RunName, WorkId)> {
        let slots = self.taken.get(worker).into_iter().flatten();
        slots.map(|(&slot, (run, work))| (slot, run, *work))
    }

    pub(super) fn workers_at(&self, node: &NodeName) -> impl Iterator<Item = &WorkerId> {
        self.at_node.get(node).into_iter().flatten()
    }

    pub(super) fn nodes(&self) -> usize {
        self.at_node.len()
    }

    /// Nodes in quarantine now.
    pub(super) fn quarantined(&self) -> usize {
        self.quarantines.len()
    }

    fn sit(&mut self, seat: &Seat, run: &RunName, work: WorkId) {
        let slots = self.taken.entry(seat.worker.clone()).or_default();
        slots.insert(seat.slot, (run.clone(), work));
    }

    fn stand_up(&mut self, seat: &Seat) {
        if let Some(slots) = self.taken.get_mut(&seat.worker) {
            slots.remove(&seat.slot);
            if slots.is_empty() {
                self.taken.remove(&seat.worker);
            }
        }
    }

    /// Takes a worker in. Its seats count once [`Self::refresh`] has looked at it.
    pub(super) fn joined(&mut self, id: &WorkerId, worker: &Worker) {
        self.at_node.entry(worker.offer.node.clone()).or_default().insert(id.clone());
        if worker.usable() > 0 {
            *self.capacity.entry(worker.offer.kind.clone()).or_default() += worker.usable();
        }
        if !worker.withdrawn.is_empty() {
            self.worn.insert(id.clone());
        }
        if let Some(at) = worker.lost_at {
            self.losses.insert((at, id.clone()));
        }
    }

    pub(super) fn parted(&mut self, id: &WorkerId, worker: &Worker) {
        if let Some(workers) = self.at_node.get_mut(&worker.offer.node) {
            workers.remove(id);
            if workers.is_empty() {
                self.at_node.remove(&worker.offer.node);
            }
        }
        if let Some(capacity) = self.capacity.get_mut(&worker.offer.kind) {
            *capacity -= worker.usable();
            if *capacity == 0 {
                self.capacity.remove(&worker.offer.kind);
            }
        }
        self.worn.remove(id);
        if let Some(at) = worker.lost_at {
            self.losses.remove(&(at, id.clone()));
        }
    }

    /// Notes what became of a node; its workers must be refreshed.
    pub(super) fn judged(&mut self, name: &NodeName, node: &Node) {
        if let Trust::Quarantined { until } = node.trust {
            self.quarantines.insert((until, name.clone()));
        }
        if node.draining {
            self.draining.insert(name.clone());
        }
    }

    pub(super) fn unjudged(&mut self, name: &NodeName, node: &Node) {
        if let Trust::Quarantined { until } = node.trust {
            self.quarantines.remove(&(until, name.clone()));
        }
        self.draining.remove(name);
    }

    /// Looks again at which seats of a worker are free; returns whether there are new ones.
    pub(super) fn refresh(
        &mut self,
        workers: &BTreeMap<WorkerId, Worker>,
        nodes: &BTreeMap<NodeName, Node>,
        id: &WorkerId,
    ) -> bool {
        let place = workers.get(id).filter(|it| it.lost_at.is_none()).and_then(|worker| {
            let offer = &worker.offer;
            if let Some(node) = nodes.get(&offer.node) {
                let is_busy = || self.workers_at(&offer.node).any(|id| self.taken.contains_key(id));
                let is_closed = node.cordoned.is_some()
                    || match node.trust {
                        Trust::Full => false,
                        Trust::Quarantined { .. } => true,
                        Trust::Retest => is_busy(),
                    };
                if is_closed {
                    return None;
                }
            }
            let taken = self.taken.get(id);
            let is_free = |slot: &u32| {
                !worker.withdrawn.contains_key(slot)
                    && taken.is_none_or(|taken| !taken.contains_key(slot))
            };
            Some(Place {
                kind: offer.kind.clone(),
                domain: offer.domain.clone(),
                node: offer.node.clone(),
                slots: (0..offer.slots).filter(is_free).collect(),
            })
        });
        self.pools.set(id, place)
    }

    /// Usable slots of all known workers, by kind of device.
    pub(super) fn capacities(&self) -> impl Iterator<Item = (String, u32)> {
        self.capacity.iter().map(|(kind, &seats)| (kind.clone(), seats))
    }

    /// Usable seats of all known workers that meet `requires`, of the kind that has most of them.
    pub(super) fn capacity(
        &self,
        workers: &BTreeMap<WorkerId, Worker>,
        requires: &Requires,
    ) -> u32 {
        let kinds = self.capacity.iter().filter(|(kind, _)| requires.accepts_kind(kind));
        if requires.labels.is_empty() && requires.memory_gib.is_none() {
            return kinds.map(|(_, &seats)| seats).max().unwrap_or(0);
        }
        let mut by_kind: BTreeMap<&str, u32> = BTreeMap::new();
        for worker in workers.values().filter(|worker| requires.accepts(&worker.offer)) {
            *by_kind.entry(&worker.offer.kind).or_default() += worker.usable();
        }
        by_kind.into_values().max().unwrap_or(0)
    }

    /// Takes a run in, all of whose works are as they are in `run`.
    pub(super) fn applied(&mut self, run: &Run, pace: Option<u64>) {
        let mut facts = Facts { pace, ..Facts::default() };
        for (&id, work) in &run.works {
            facts.count(id, &work.phase, true);
            if let Phase::Backoff { until } = work.phase {
                self.rests.insert((until, run.name().clone(), id));
            }
        }
        self.runs.insert(run.name().clone(), facts);
        self.turned(run);
    }

    /// The run's phase changed: everything or nothing of it may start.
    pub(super) fn turned(&mut self, run: &Run) {
        let name = run.name();
        if matches!(run.head.phase, RunPhase::Stopping { .. }) {
            self.stopping.insert(name.clone());
        } else {
            self.stopping.remove(name);
        }
        self.jobs.remove(&JobQueue::of(run));
        let first = WorkId::job(Stage::Index, 0);
        let own = self.keys.range((name.clone(), first)..).take_while(|((it, _), _)| it == name);
        let own: Vec<(RunName, WorkId)> = own.map(|(key, _)| key.clone()).collect();
        for key in own {
            if let Some(ready) = self.keys.remove(&key) {
                self.models.remove(&ready);
            }
        }
        if run.head.phase == RunPhase::Active {
            for &id in run.works.keys() {
                self.consider(run, id);
            }
        }
    }

    /// Whether `id` could start, as far as its run and its needs go.
    pub(super) fn is_ready(&self, run: &Run, id: WorkId) -> bool {
        let Some(facts) = self.runs.get(run.name()) else { return false };
        run.head.phase == RunPhase::Active
            && run.works.get(&id).is_some_and(|work| work.phase == Phase::Waiting)
            && run.plan().needs(id).into_iter().all(|need| run.is_met(need, &facts.open))
    }

    /// Puts a work among the ready ones, or takes it from there. Returns whether it is ready.
    pub(super) fn consider(&mut self, run: &Run, id: WorkId) -> bool {
        let is_ready = self.is_ready(run, id);
        let Some(model) = id.model() else {
            let queue = JobQueue::of(run);
            if is_ready {
                self.jobs.entry(queue).or_default().insert(id);
            } else if let Some(jobs) = self.jobs.get_mut(&queue) {
                jobs.remove(&id);
                if jobs.is_empty() {
                    self.jobs.remove(&queue);
                }
            }
            return is_ready;
        };
        let key = (run.name().clone(), id);
        if let Some(old) = self.keys.remove(&key) {
            self.models.remove(&old);
        }
        if is_ready {
            let committed = run.works.get(&id).map_or(0, |work| work.committed_step().0);
            let steps = run.steps_left(model, committed);
            let pace = self.runs.get(run.name()).and_then(|facts| facts.pace).unwrap_or(PACE);
            let ready = ReadyModel {
                priority: Reverse(run.head.spec.spec.priority),
                left: Reverse(steps.saturating_mul(pace)),
                created: run.head.created,
                run: run.name().clone(),
                work: id,
            };
            self.models.insert(ready.clone());
            self.keys.insert(key, ready);
        }
        is_ready
    }

    /// A run's pace became known: orders its waiting models anew.
    pub(super) fn paced(&mut self, run: &Run, pace: u64) {
        if let Some(facts) = self.runs.get_mut(run.name()) {
            facts.pace = Some(pace);
        }
        for &model in run.plan().models() {
            self.consider(run, WorkId::Model(model));
        }
    }

    /// Whether anything of a run waits with all its needs met.
    pub(super) fn has_ready(&self, run: &Run) -> bool {
        let name = run.name();
        let first = (name.clone(), WorkId::job(Stage::Index, 0));
        self.jobs.contains_key(&JobQueue::of(run))
            || self.keys.range(first..).next().is_some_and(|((it, _), _)| it == name)
    }

    /// Follows one work from `before` to what it is now. Returns the workers whose seats changed, and
    /// whether anything became ready.
    pub(super) fn moved(
        &mut self,
        run: &Run,
        id: WorkId,
        before: &Work,
    ) -> (BTreeSet<WorkerId>, bool) {
        let mut touched = BTreeSet::new();
        let Some(after) = run.works.get(&id) else { return (touched, false) };
        let name = run.name();
        let seats = |work: &Work| -> BTreeSet<Seat> {
            let alive = work.gang().into_iter().flat_map(super::Gang::alive);
            alive.map(|(_, seat)| seat.clone()).collect()
        };
        let (were, are) = (seats(before), seats(after));
        for seat in were.difference(&are) {
            self.stand_up(seat);
            touched.insert(seat.worker.clone());
        }
        for seat in are.difference(&were) {
            self.sit(seat, name, id);
            touched.insert(seat.worker.clone());
        }
        if let Phase::Backoff { until } = before.phase {
            self.rests.remove(&(until, name.clone(), id));
        }
        if let Phase::Backoff { until } = after.phase {
            self.rests.insert((until, name.clone(), id));
        }
        let mut is_stage_done = false;
        if let Some(facts) = self.runs.get_mut(name) {
            facts.count(id, &before.phase, false);
            facts.count(id, &after.phase, true);
            if let WorkId::Job(JobId { stage, .. }) = id {
                is_stage_done = after.phase == Phase::Done && !facts.open.contains_key(&stage);
            }
        }
        let mut has_ready = self.consider(run, id);
        if after.phase == Phase::Done && before.phase != Phase::Done {
            for dependent in run.plan().dependents(id, is_stage_done) {
                has_ready |= self.consider(run, dependent);
            }
        }
        (touched, has_ready)
    }
}

impl JobQueue {
    pub(super) fn of(run: &Run) -> Self {
        Self {
            priority: Reverse(run.head.spec.spec.priority),
            created: run.head.created,
            run: run.name().clone(),
        }
    }
}

impl Facts {
    /// Counts a work in, or out.
    fn count(&mut self, id: WorkId, phase: &Phase, is_in: bool) {
        let tally = |count: &mut u32| if is_in { *count += 1 } else { *count -= 1 };
        let note = |set: &mut BTreeSet<WorkId>| {
            if is_in {
                set.insert(id)
            } else {
                set.remove(&id)
            };
        };
        if *phase != Phase::Done {
            tally(&mut self.undone);
            if let WorkId::Job(JobId { stage, .. }) = id {
                let open = self.open.entry(stage).or_default();
                tally(open);
                if *open == 0 {
                    self.open.remove(&stage);
                }
            }
        }
        match phase {
            Phase::Running(_) => {
                tally(&mut self.under_way);
                note(&mut self.running);
            }
            Phase::Stopping { .. } => {
                tally(&mut self.under_way);
                note(&mut self.stopping);
            }
            Phase::Inspecting { .. } => tally(&mut self.under_way),
            Phase::Backoff { .. } => tally(&mut self.resting),
            Phase::Failed { .. } => note(&mut self.failed),
            Phase::Waiting | Phase::Done => (),
        }
    }
}
