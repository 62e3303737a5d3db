//! One event in, new state and actions out.

use std::collections::{BTreeMap, BTreeSet};

use super::failures::seats;
use super::{
    Action, Event, Farewell, Limits, Node, Object, Phase, Refusal, RunHead, RunPhase, State,
    StopFor, Work, Worker,
};
use crate::ids::{Fence, Millis, NodeName, RunName, WorkId, WorkerId};

/// What one event led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Pieces of the state to be saved in one transaction, before any action.
    pub changed: BTreeSet<Object>,
    pub actions: Vec<Action>,
    /// Why the event was not taken; then nothing changed.
    pub refusal: Option<Refusal>,
    /// There is more to do than fits one transaction: [`Event::Tick`] goes on with it.
    pub more: bool,
    /// How gangs ended that had been asked to save and leave: for people, and nothing to be done about.
    pub farewells: Vec<Farewell>,
    /// What the changed pieces were before.
    pub before: Before,
}

/// The old values of whatever one event changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Before {
    pub works: BTreeMap<(RunName, WorkId), Work>,
    pub phases: BTreeMap<RunName, RunPhase>,
    /// When the runs of `phases` had ended.
    pub ended: BTreeMap<RunName, Option<Millis>>,
    /// Runs that were not there.
    pub created: BTreeSet<RunName>,
    pub workers: BTreeMap<WorkerId, Option<Worker>>,
    /// When workers were to be judged lost, and whether they had said goodbye.
    pub absences: BTreeMap<WorkerId, (Option<Millis>, bool)>,
    pub nodes: BTreeMap<NodeName, Node>,
    pub term: crate::ids::Term,
    pub(super) failures: super::failures::Failures,
    /// None of those that were not asked to leave.
    pub(super) leaving: BTreeMap<(RunName, WorkId), Option<super::farewell::Leaving>>,
}

/// Pieces that one transaction may change: etcd takes 128 operations by default.
pub const MAX_CHANGED: usize = 100;

/// Applies one event at time `now`, then seats whatever can be seated.
pub fn step(state: &mut State, limits: Limits, now: Millis, event: Event) -> Effects {
    let is_first = state.heard == Millis(0);
    let passed = if is_first { 0 } else { now.0.saturating_sub(state.heard.0) };
    state.clock = if is_first { state.clock.max(now) } else { Millis(state.clock.0 + passed) };
    state.heard = now;
    let before = Before { term: state.term, failures: state.failures, ..Before::default() };
    let effects = Effects { before, ..Effects::default() };
    let (now, touched) = (state.clock, BTreeSet::new());
    let mut stepper = Stepper { now, state, limits, effects, touched };
    if passed > limits.pause.0 {
        stepper.slept(passed);
        // That is not taken back: time has gone on.
        stepper.effects.before.failures = stepper.state.failures;
    }
    stepper.effects.refusal = stepper.apply(event).err();
    if stepper.effects.refusal.is_none() {
        stepper.go_on();
    }
    stepper.effects
}

/// The state with the effects of the event at hand.
pub(super) struct Stepper<'a> {
    pub(super) state: &'a mut State,
    pub(super) limits: Limits,
    pub(super) now: Millis,
    pub(super) effects: Effects,
    /// Runs of works that changed: each may have come to its end, which changes its head, too.
    touched: BTreeSet<RunName>,
}

impl Stepper<'_> {
    fn apply(&mut self, event: Event) -> Result<(), Refusal> {
        match event {
            Event::TookLead { term } => self.took_lead(term),
            Event::Applied { spec, tars } => self.applied(*spec, tars),
            Event::CancelRequested { run } => self.stop_run(&run, StopFor::Cancel),
            Event::NodeCordoned { node, reason, drain } => self.cordon(&node, reason, drain)?,
            Event::NodeUncordoned { node } => self.uncordon(&node)?,
            Event::WorkerAttached { worker, offer, withdrawn, ranks } => {
                self.attached(worker, offer, withdrawn, &ranks)?;
            }
            Event::WorkerDetached { worker } => self.detached(&worker),
            Event::WorkerLeft { worker } => self.left(&worker),
            Event::DeviceWithdrawn { worker, slot, reason } => {
                self.withdrawn(&worker, [(slot, reason)].into())?;
            }
            Event::RendezvousPosted { worker, fence, address } => {
                let posted = self.rendezvous(&worker, &fence, address);
                self.answer(worker, fence, posted)?;
            }
            Event::CheckpointReported { worker, fence, checkpoint } => {
                let committed = self.committed(&worker, &fence, checkpoint);
                self.answer(worker, fence, committed)?;
            }
            Event::Progressed { worker, fence, rank, done, busy_us } => {
                let progressed = self.progressed(&worker, &fence, rank, done, busy_us);
                self.answer(worker, fence, progressed)?;
            }
            Event::RankExited { worker, fence, rank, outcome } => {
                let exited = self.rank_exited(&worker, &fence, rank, outcome);
                self.answer(worker, fence, exited)?;
            }
            Event::Inspected { fence, newest } => self.inspected(&fence, newest),
            Event::Tick => self.tick(),
        }
        Ok(())
    }

    /// Tells a worker why its report was not taken.
    fn answer(
        &mut self,
        worker: WorkerId,
        fence: Fence,
        said: Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        said.inspect_err(|why| self.act(Action::Refuse { worker, fence, why: why.clone() }))
    }

    /// What follows from any event, as far as it fits one transaction.
    fn go_on(&mut self) {
        self.lose_due_workers();
        self.stop_stopping_runs();
        self.leave_draining_nodes();
        self.leave_withdrawn_seats();
        self.end_runs();
        self.place();
    }

    pub(super) fn act(&mut self, action: Action) {
        self.effects.actions.push(action);
    }

    /// Whether another change may be begun in this transaction.
    pub(super) fn has_room(&self) -> bool {
        self.effects.changed.len() + self.touched.len() < self.limits.objects
    }

    /// The only way a work changes: what follows from it is kept up to date.
    pub(super) fn change<R>(
        &mut self,
        run: &RunName,
        id: WorkId,
        change: impl FnOnce(&mut Work) -> R,
    ) -> Option<R> {
        let state = &mut *self.state;
        let found = state.runs.get_mut(run)?;
        let work = found.works.get_mut(&id)?;
        let before = work.clone();
        let result = change(work);
        if *work == before {
            return Some(result);
        }
        let is_running = matches!(work.phase, Phase::Running(_));
        let was_running = matches!(before.phase, Phase::Running(_));
        let (left, taken) = (seats(id, &before), seats(id, work));
        if left != taken {
            state.failures.seated(self.now, left, taken);
        }
        let (touched, has_ready) = state.index.moved(found, id, &before);
        state.unsettled |= has_ready;
        for worker in touched {
            self.refresh(&worker);
        }
        self.effects.changed.insert(Object::of(run, id));
        if !self.touched.contains(run) {
            self.touched.insert(run.clone());
        }
        self.effects.before.works.entry((run.clone(), id)).or_insert(before);
        match (was_running, is_running) {
            (false, true) => self.watch(run, id),
            (true, false) => self.unwatch(run, id),
            (true, true) | (false, false) => (),
        }
        Some(result)
    }

    /// Changes a run's head.
    pub(super) fn change_head(&mut self, run: &RunName, change: impl FnOnce(&mut RunHead)) {
        let state = &mut *self.state;
        let Some(found) = state.runs.get_mut(run) else { return };
        let (before, ended) = (found.head.phase.clone(), found.head.ended);
        change(&mut found.head);
        self.effects.changed.insert(Object::Run(run.clone()));
        if found.head.phase != before {
            state.index.turned(found);
            state.unsettled = true;
            self.effects.before.phases.entry(run.clone()).or_insert(before);
            self.effects.before.ended.entry(run.clone()).or_insert(ended);
        }
    }

    /// Changes what is remembered of a node; one of which there is nothing to remember is forgotten.
    pub(super) fn change_node(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        let state = &mut *self.state;
        let mut node = state.nodes.remove(name).unwrap_or_default();
        let before = node.clone();
        state.index.unjudged(name, &before);
        change(&mut node);
        state.index.judged(name, &node);
        let is_news = node != before;
        if node != Node::default() {
            state.nodes.insert(name.clone(), node);
        }
        if is_news {
            self.effects.changed.insert(Object::Node(name.clone()));
            self.effects.before.nodes.entry(name.clone()).or_insert(before);
            self.refresh_node(name);
        }
    }

    pub(super) fn refresh_node(&mut self, name: &NodeName) {
        let state = &mut *self.state;
        let workers: Vec<WorkerId> = state.index.workers_at(name).cloned().collect();
        for worker in workers {
            state.unsettled |= state.index.refresh(&state.workers, &state.nodes, &worker);
        }
    }

    /// Looks again at the free seats of a worker, and of its neighbours if one's work closes all.
    pub(super) fn refresh(&mut self, worker: &WorkerId) {
        let state = &mut *self.state;
        state.unsettled |= state.index.refresh(&state.workers, &state.nodes, worker);
        if let Some(node) = state.node_of(worker).cloned()
            && state.nodes.get(&node).is_some_and(|node| node.trust == super::Trust::Retest)
        {
            self.refresh_node(&node);
        }
    }

    /// Every (run, work) whose phase satisfies `is_wanted`. Looks at everything: for rare events.
    pub(super) fn works_where(&self, is_wanted: impl Fn(&Work) -> bool) -> Vec<(RunName, WorkId)> {
        let runs = self.state.runs.iter();
        runs.flat_map(|(name, run)| {
            let wanted = run.works.iter().filter(|(_, work)| is_wanted(work));
            wanted.map(|(&id, _)| (name.clone(), id))
        })
        .collect()
    }

    fn took_lead(&mut self, term: crate::ids::Term) {
        // Only a leader applies events, and each leads under a higher term than those before.
        if term < self.state.term {
            return;
        }
        self.state.term = term;
        self.state.doubts_ends = true;
        let lost_at = Millis(self.now.0 + self.limits.takeover.0);
        let workers: Vec<WorkerId> = self.state.workers.keys().cloned().collect();
        for worker in workers {
            self.hang_up(&worker, Some(lost_at));
        }
        let mut taken = 0;
        for (run, id) in self.works_where(|work| matches!(work.phase, Phase::Running(_))) {
            self.watch(&run, id);
            self.missed_its_start(&run, id);
            taken += self.state.work(&run, id).map_or(0, |work| seats(id, work));
        }
        self.state.failures.found(self.now, taken);
        // The answer to an inspection asked for by the former leader never comes.
        for (run, id) in self.works_where(|work| matches!(work.phase, Phase::Inspecting { .. })) {
            if let Some(fence) = self.state.runs.get(&run).and_then(|run| run.fence(id)) {
                self.act(Action::Inspect { fence });
            }
        }
    }

    /// This process itself stood still, or its clock leapt: whoever could not be heard meanwhile is
    /// not to blame, and has as long left as before.
    fn slept(&mut self, passed: u64) {
        self.state.failures.slept(passed);
        let away = self.state.workers.iter().filter(|(_, worker)| !worker.said_goodbye);
        let away: Vec<(WorkerId, Millis)> =
            away.filter_map(|(id, worker)| Some((id.clone(), worker.lost_at?))).collect();
        for (worker, lost_at) in away {
            self.hang_up(&worker, Some(Millis(lost_at.0 + passed)));
        }
        let watched: Vec<(RunName, WorkId)> = self.state.seen.keys().cloned().collect();
        for (run, id) in watched {
            self.excuse(&run, id);
        }
    }

    /// No rest and no quarantine lasts longer than the longest there is: one that does was written
    /// under a clock that was ahead of this one.
    fn shorten_ends(&mut self) {
        let now = self.now;
        for (until, run, id) in self.state.index.rests.clone() {
            let Some(found) = self.state.runs.get(&run) else { continue };
            let latest = Millis(now.0 + super::gang::gang_spec(found, id).backoff.to.millis());
            if until <= latest {
                continue;
            }
            if !self.has_room() {
                self.effects.more = true;
                return;
            }
            self.change(&run, id, |work| work.phase = Phase::Backoff { until: latest });
        }
        let latest = self.longest_quarantine();
        for (until, node) in self.state.index.quarantines.clone() {
            if until <= latest {
                continue;
            }
            if !self.has_room() {
                self.effects.more = true;
                return;
            }
            self.change_node(&node, |node| {
                node.trust = super::Trust::Quarantined { until: latest }
            });
        }
        self.state.doubts_ends = false;
    }

    fn tick(&mut self) {
        if self.state.doubts_ends {
            self.shorten_ends();
        }
        while let Some((until, run, id)) = self.state.index.rests.first().cloned() {
            if until > self.now {
                break;
            }
            if !self.has_room() {
                self.effects.more = true;
                break;
            }
            self.change(&run, id, |work| work.phase = Phase::Waiting);
        }
        if self.state.look_again.is_some_and(|at| at <= self.now) {
            self.state.look_again = None;
            self.state.unsettled = true;
        }
        self.judge_hangs();
        self.end_quarantines();
        self.make_way();
        self.widen();
    }
}
