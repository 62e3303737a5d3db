//! A simulated world around the scheduler: agents, ranks, a store, and everything that can go wrong.
//!
//! Agents obey orders as the real ones do: they refuse lower incarnations and terms, start a rank
//! once, repeat reports until they are acknowledged, and say so when a rank is gone. Time is
//! simulated; every choice comes from one seed.

mod agent;

use std::collections::BTreeMap;

use clade_core::ids::{
    CheckpointRef, Digest, Fence, Incarnation, Millis, ModelId, RunName, Step, Term, WorkId,
    WorkerId,
};
use clade_core::order::Random;
use clade_core::schedule::{Action, Event, Limits, Phase, RunPhase, State, invariants, step};
use clade_core::spec::RunSpec;

pub use agent::Agent;

/// Milliseconds between two looks at the world.
const TICK: u64 = 100;

/// How often things go wrong, per tick and per thing.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub rank_dies: f64,
    pub agent_dies: f64,
    pub stream_breaks: f64,
    pub leader_dies: f64,
}

impl Faults {
    pub const NONE: Self =
        Self { rank_dies: 0.0, agent_dies: 0.0, stream_breaks: 0.0, leader_dies: 0.0 };
    pub const CHAOS: Self =
        Self { rank_dies: 0.002, agent_dies: 0.001, stream_breaks: 0.01, leader_dies: 0.004 };
}

/// The whole world.
pub struct World {
    pub state: State,
    pub now: Millis,
    pub random: Random,
    pub agents: Vec<Agent>,
    /// Checkpoints whose manifest exists, by model and incarnation.
    pub candidates: BTreeMap<(ModelId, Incarnation), Vec<CheckpointRef>>,
    /// Where each gang went on from: what G4 is judged by.
    pub starts: Vec<(Fence, Option<CheckpointRef>)>,
    /// Orders and answers under way, with the time they arrive.
    pending: Vec<(Millis, Pending)>,
    agents_ever: u32,
    slots: u32,
}

enum Pending {
    /// The store's answer to an inspection, asked for under a term.
    Inspection(Term, Fence),
    /// A dead agent's successor.
    Successor,
}

impl World {
    pub fn new(seed: u64, spec: RunSpec, tars: u32, agents: u32, slots: u32) -> Self {
        let mut world = Self {
            state: State::default(),
            now: Millis(1_000),
            random: Random::new(seed),
            agents: Vec::new(),
            candidates: BTreeMap::new(),
            starts: Vec::new(),
            pending: Vec::new(),
            agents_ever: 0,
            slots,
        };
        world.event(Event::TookLead { term: Term(1) });
        world.event(Event::Applied { spec: Box::new(spec), tars });
        for _ in 0..agents {
            world.new_agent();
        }
        world
    }

    fn new_agent(&mut self) {
        self.agents_ever += 1;
        let id = WorkerId(format!("w{}", self.agents_ever));
        self.agents.push(Agent::new(id, self.slots));
    }

    fn chance(&mut self, share: f64) -> bool {
        self.random.unit() < share
    }

    pub fn run_phase(&self) -> &RunPhase {
        &self.state.runs.values().next().expect("the world has one run").head.phase
    }

    /// Applies an event; orders to agents without a stream are lost, as in the real one.
    pub fn event(&mut self, event: Event) {
        let before = self.state.clone();
        let effects = step(&mut self.state, Limits::default(), self.now, event.clone());
        let broken = invariants::violations(&before, &self.state);
        assert!(broken.is_empty(), "{broken:?} after {event:?}");
        for action in effects.actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        let term = self.state.term;
        match action {
            Action::StartRank(start) => {
                if start.rank == 0 {
                    self.judge_start(&start.fence, start.resume.as_ref());
                }
                if let Some(agent) = self.reachable(&start.seat.worker.clone()) {
                    agent.start(term, start);
                }
            }
            Action::StopRank { seat, fence, rank, save } => {
                if let Some(agent) = self.reachable(&seat.worker) {
                    agent.stop(term, &fence, rank, save);
                }
            }
            Action::Refuse { worker, fence, .. } => {
                if let Some(agent) = self.reachable(&worker) {
                    agent.stop(term, &fence, 0, false);
                }
            }
            Action::Supersede { worker } => {
                let found = self.agents.iter().position(|agent| agent.id == worker);
                if let Some(at) = found {
                    self.agents.remove(at);
                    self.new_agent();
                }
            }
            Action::Inspect { fence } => {
                let delay = self.random.below(800);
                let at = Millis(self.now.0 + delay);
                self.pending.push((at, Pending::Inspection(term, fence)));
            }
            Action::Collect { checkpoints, .. } => {
                for gone in checkpoints {
                    let kept = self.candidates.get_mut(&(gone.model, gone.incarnation));
                    if let Some(kept) = kept {
                        kept.retain(|it| *it != gone);
                    }
                }
            }
            Action::ShareRendezvous { .. } => (),
        }
    }

    /// G4: a gang goes on from its model's newest committed checkpoint, never from less.
    fn judge_start(&mut self, fence: &Fence, resume: Option<&CheckpointRef>) {
        let Some(model) = fence.work.model() else { return };
        let newest = self.candidates.iter().filter(|((of, _), _)| *of == model);
        let work = self.state.work(&fence.run, fence.work).expect("a started work exists");
        assert_eq!(work.committed.last(), resume, "{fence} starts from another checkpoint");
        if let Some(resume) = resume {
            assert!(
                newest.flat_map(|(_, all)| all).any(|it| it == resume),
                "{fence} resumes from {resume}, which is not in the store"
            );
        }
        self.starts.push((fence.clone(), resume.cloned()));
    }

    fn reachable(&mut self, worker: &WorkerId) -> Option<&mut Agent> {
        self.agents.iter_mut().find(|agent| agent.id == *worker && agent.is_attached)
    }

    /// Lets 100 ms pass.
    pub fn tick(&mut self, faults: &Faults) {
        self.now.0 += TICK;
        self.break_things(faults);
        self.attach();
        self.event(Event::Tick);
        self.answer();
        self.train();
        self.report();
    }

    fn break_things(&mut self, faults: &Faults) {
        if self.chance(faults.leader_dies) {
            let term = self.state.term.next();
            self.agents.iter_mut().for_each(|agent| agent.is_attached = false);
            self.pending.retain(|(_, it)| matches!(it, Pending::Successor));
            self.reload();
            self.event(Event::TookLead { term });
        }
        let mut at = 0;
        while at < self.agents.len() {
            let id = self.agents[at].id.clone();
            if self.chance(faults.agent_dies) {
                let was_attached = self.agents.remove(at).is_attached;
                if was_attached {
                    self.event(Event::WorkerDetached { worker: id });
                }
                let back = Millis(self.now.0 + self.random.below(5_000));
                self.pending.push((back, Pending::Successor));
                continue;
            }
            if self.agents[at].is_attached && self.chance(faults.stream_breaks) {
                self.agents[at].is_attached = false;
                // Now and then for longer than the coordinator waits.
                let away = self.random.below(4_500);
                self.agents[at].away_until = Millis(self.now.0 + away);
                self.event(Event::WorkerDetached { worker: id });
            }
            let share = faults.rank_dies;
            let mut random = self.random.clone();
            self.agents[at].kill_ranks(|| random.unit() < share);
            self.random = random;
            at += 1;
        }
    }

    /// A new leader knows what was saved, and nothing else.
    fn reload(&mut self) {
        for run in self.state.runs.values_mut() {
            for (id, work) in &mut run.works {
                let json = serde_json::to_string(work).expect("a work can be saved");
                *work = serde_json::from_str(&json)
                    .unwrap_or_else(|error| panic!("{id} cannot be read back: {error}: {json}"));
            }
        }
    }

    fn attach(&mut self) {
        for at in 0..self.agents.len() {
            let Some(agent) = self.agents.get_mut(at) else { break };
            if agent.is_attached || agent.away_until > self.now {
                continue;
            }
            agent.is_attached = true;
            let event = agent.hello();
            self.event(event);
        }
    }

    fn answer(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|(at, _)| *at <= now);
        self.pending = later;
        for (_, pending) in due {
            match pending {
                Pending::Successor => self.new_agent(),
                Pending::Inspection(term, fence) if term == self.state.term => {
                    let model = fence.work.model().expect("only models are inspected");
                    let left = self.candidates.get(&(model, fence.incarnation));
                    let newest = left.and_then(|all| all.last().cloned());
                    self.event(Event::Inspected { fence, newest });
                }
                Pending::Inspection(..) => (),
            }
        }
    }

    /// Gangs of which every rank lives take a step; zombies of lost workers do, too.
    fn train(&mut self) {
        let mut alive: BTreeMap<Fence, u32> = BTreeMap::new();
        for agent in &self.agents {
            for fence in agent.living() {
                *alive.entry(fence.clone()).or_default() += 1;
            }
        }
        for (fence, ranks) in alive {
            let run: &RunName = &fence.run;
            let found = &self.state.runs[run];
            if ranks < found.ranks(fence.work) {
                continue;
            }
            let due = fence.work.model().map_or(5, |model| found.due(model).0);
            let mut written = None;
            for agent in &mut self.agents {
                written = agent.work(&fence, due).or(written);
            }
            if let (Some(step), Some(model)) = (written, fence.work.model()) {
                let checkpoint = CheckpointRef {
                    model,
                    incarnation: fence.incarnation,
                    step: Step(step),
                    manifest: Digest([u8::try_from(step % 251).expect("below 251"); 32]),
                };
                let left = self.candidates.entry((model, fence.incarnation)).or_default();
                if left.last().is_none_or(|last| last.step < checkpoint.step) {
                    left.push(checkpoint.clone());
                    self.agents.iter_mut().for_each(|agent| agent.wrote(&fence, &checkpoint));
                }
            }
        }
    }

    fn report(&mut self) {
        for at in 0..self.agents.len() {
            let Some(agent) = self.agents.get(at) else { break };
            if !agent.is_attached {
                continue;
            }
            for event in agent.reports.clone() {
                self.event(event);
            }
            // An acknowledgement may be lost; then everything is said once more.
            if !self.chance(0.1)
                && let Some(agent) = self.agents.get_mut(at)
            {
                agent.reports.clear();
            }
        }
    }

    /// Runs until the run has ended, at most so many simulated seconds.
    pub fn heal(&mut self, seconds: u64) -> Result<(), String> {
        for _ in 0..seconds * 1_000 / TICK {
            match self.run_phase() {
                RunPhase::Finished => return Ok(()),
                RunPhase::Failed { .. } | RunPhase::Cancelled => {
                    return Err(format!("the run ended as {:?}", self.run_phase()));
                }
                RunPhase::Active | RunPhase::Stopping { .. } => self.tick(&Faults::NONE),
            }
        }
        let open = |phase: &Phase| *phase != Phase::Done;
        let works = self.state.runs.values().flat_map(|run| &run.works);
        let left: Vec<(&WorkId, &Phase)> = works
            .filter(|(_, work)| open(&work.phase))
            .map(|(id, work)| (id, &work.phase))
            .collect();
        Err(format!("not finished after {seconds} s: {left:?}"))
    }
}
