//! The world: what is there, what happens next, and how it all goes.

use std::collections::BTreeMap;

use clade_core::ids::{CheckpointRef, Fence, Term};
use clade_core::job::Outcome as Exit;
use clade_core::order::Random;
use clade_core::schedule::RunPhase;

use crate::agent::Agent;
use crate::bucket::Bucket;
use crate::coordinator::{Leader, Mishap};
use crate::coverage::Coverage;
use crate::database::Database;
use crate::judge::Judge;
use crate::machine::Machine;
use crate::network::{Down, Stream, Up};
use crate::setting::{Kind, Setting};
use crate::training::Training;

/// Time within which everything must be done once faults have stopped.
const HEALING: u64 = 400_000;

/// Everything there is.
pub struct World {
    pub(crate) setting: Setting,
    pub(crate) random: Random,
    /// True time, in milliseconds, which nobody in here can read.
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    ids: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// Everyone who believes to lead.
    pub(crate) leaders: BTreeMap<Term, Leader>,
    pub(crate) database: Database,
    pub(crate) bucket: Bucket,
    pub(crate) gangs: BTreeMap<Fence, Training>,
    pub(crate) judge: Judge,
    pub coverage: Coverage,
    faults: BTreeMap<&'static str, u32>,
    /// Faults have stopped.
    pub(crate) is_over: bool,
    pub(crate) was_cancelled_widely: bool,
    broken: Vec<String>,
    /// Befalls the next transaction.
    pub(crate) mishap: Option<Mishap>,
    pub(crate) last_refusal: Option<&'static str>,
    is_verbose: bool,
    trace: Vec<String>,
}

/// What is going to happen.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    LeaderTicks(Term),
    LeaderWakes(Term),
    LeaderGoes(Term),
    Elect,
    Up { stream: u64, up: Up },
    Down { stream: u64, term: Term, down: Down },
    AgentHearsEnd(u64),
    LeaderHearsEnd(u64),
    Keepalive { stream: u64, agent: u64, leader: u64 },
    Connect(usize),
    Patience { agent: usize, stream: u64 },
    LastWords(usize),
    AgentReturns(usize),
    Listens(Fence),
    Turn(Fence),
    Put { fence: Fence, step: u64, parent: Option<CheckpointRef>, tries: u32 },
    RankEnds { fence: Fence, rank: u32, outcome: Exit },
    Inspect { term: Term, fence: Fence },
    Fault,
    FaultsStop,
    Apply { run: usize },
    Supervise,
    Uncordon(usize),
    Reset(usize),
}

/// How a world went.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub kind: Kind,
    /// What was wrong; nothing if all is well.
    pub broken: Vec<String>,
    pub faults: BTreeMap<&'static str, u32>,
    pub coverage: Coverage,
    pub events: u64,
    /// Virtual milliseconds.
    pub lasted: u64,
    pub workers: usize,
    pub models: usize,
    pub trace: Vec<String>,
}

/// Plays the world of a seed to its end.
pub fn play(seed: u64, is_verbose: bool) -> Outcome {
    let mut world = World::new(seed, is_verbose);
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    if let Err(panic) = played {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        world.broken.push(format!("panicked: {}", text.unwrap_or_default()));
    }
    Outcome {
        seed,
        kind: world.setting.kind,
        workers: world.machines.len(),
        models: world.setting.runs.iter().map(|run| run.models().len()).sum(),
        broken: world.broken,
        faults: world.faults,
        events: world.coverage.events(),
        coverage: world.coverage,
        lasted: world.now,
        trace: world.trace,
    }
}

impl World {
    fn new(seed: u64, is_verbose: bool) -> Self {
        let (setting, machines) = Setting::draw(seed);
        Self {
            setting,
            random: Random::new(seed),
            now: 0,
            queue: BTreeMap::new(),
            ids: 0,
            machines,
            agents: Vec::new(),
            streams: BTreeMap::new(),
            leaders: BTreeMap::new(),
            database: Database::default(),
            bucket: Bucket::default(),
            gangs: BTreeMap::new(),
            judge: Judge::default(),
            coverage: Coverage::default(),
            faults: BTreeMap::new(),
            is_over: false,
            was_cancelled_widely: false,
            broken: Vec::new(),
            mishap: None,
            last_refusal: None,
            is_verbose,
            trace: Vec::new(),
        }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(crate) fn at(&mut self, time: u64, happening: Happening) {
        let id = self.next_id();
        self.queue.insert((time.max(self.now), id), happening);
    }

    /// Something is wrong with the scheduler.
    pub(crate) fn broke(&mut self, what: String) {
        self.trace(|_| format!("BROKEN: {what}"));
        self.broken.push(what);
    }

    /// Counts a fault that was really injected.
    pub(crate) fn note_fault(&mut self, what: &'static str) {
        self.trace(|_| format!("FAULT: {what}"));
        *self.faults.entry(what).or_default() += 1;
    }

    pub(crate) const fn is_verbose(&self) -> bool {
        self.is_verbose
    }

    pub(crate) fn faults_so_far(&self) -> u32 {
        self.faults.values().sum()
    }

    pub(crate) fn trace(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.is_verbose {
            let line = line(self);
            self.trace.push(format!("{:>8} {line}", self.now));
        }
    }

    fn run(&mut self) {
        self.at(0, Happening::Elect);
        for machine in 0..self.machines.len() {
            let at = self.random.below(4_000);
            self.at(at, Happening::AgentReturns(machine));
        }
        self.at(500, Happening::Apply { run: 0 });
        if self.setting.runs.len() > 1 {
            self.at(self.setting.second_at, Happening::Apply { run: 1 });
        }
        self.at(1_000, Happening::Supervise);
        let gap = (self.setting.chaos - 3_000) / self.setting.faults;
        for fault in 0..self.setting.faults {
            let at = 3_000 + fault * gap + self.random.below(gap);
            self.at(at, Happening::Fault);
        }
        self.at(self.setting.chaos, Happening::FaultsStop);
        while self.broken.is_empty() {
            let Some(((time, _), happening)) = self.queue.pop_first() else { break };
            self.now = time;
            if self.is_over && self.is_finished() {
                break;
            }
            if self.now > self.setting.chaos + HEALING {
                let left = self.left();
                self.broke(format!(
                    "not finished {} s after the last fault: {left}",
                    HEALING / 1_000
                ));
                break;
            }
            self.happens(happening);
        }
        if self.broken.is_empty() {
            self.judge_the_end();
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::LeaderTicks(term) => self.leader_ticks(term),
            Happening::LeaderWakes(term) => self.leader_wakes(term),
            Happening::LeaderGoes(term) => self.leader_goes(term),
            Happening::Elect => self.elect(),
            Happening::Up { stream, up } => self.up_arrives(stream, up),
            Happening::Down { stream, term, down } => self.down_arrives(stream, term, down),
            Happening::AgentHearsEnd(stream) => self.agent_hears_end(stream),
            Happening::LeaderHearsEnd(stream) => self.leader_hears_end(stream),
            Happening::Keepalive { stream, agent, leader } => {
                self.keepalive(stream, agent, leader);
            }
            Happening::Connect(agent) => self.connect(agent),
            Happening::Patience { agent, stream } => self.patience_ends(agent, stream),
            Happening::LastWords(agent) => self.say_goodbye(agent),
            Happening::AgentReturns(machine) => {
                if self.machines[machine].agent.is_none() {
                    self.start_agent(machine);
                }
            }
            Happening::Listens(fence) => self.listens(&fence),
            Happening::Turn(fence) => self.turn(&fence),
            Happening::Put { fence, step, parent, tries } => self.put(&fence, step, parent, tries),
            Happening::RankEnds { fence, rank, outcome } => self.rank_ends(&fence, rank, outcome),
            Happening::Inspect { term, fence } => self.inspects(term, fence),
            Happening::Fault => self.fault(),
            Happening::FaultsStop => self.faults_stop(),
            Happening::Apply { run } => self.apply(run),
            Happening::Supervise => self.supervise(),
            Happening::Uncordon(machine) => self.uncordon(machine),
            Happening::Reset(machine) => self.reset_again(machine),
        }
    }

    /// The one that may write, if it is there.
    pub(crate) fn leader(&self) -> Option<&Leader> {
        self.leaders.get(&self.database.guard)
    }

    fn is_finished(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let runs = &leader.state.runs;
        runs.len() == self.setting.runs.len()
            && runs.values().all(|run| run.head.phase == RunPhase::Finished)
            && self.gangs.is_empty()
    }

    fn left(&self) -> String {
        let Some(leader) = self.leader() else { return "nobody leads".to_owned() };
        let open = leader.state.runs.iter().flat_map(|(name, run)| {
            let works = run.works.iter();
            let open = works.filter(|(_, it)| it.phase != clade_core::schedule::Phase::Done);
            open.map(move |(id, it)| format!("{name}/{id}: {:?}", it.phase))
        });
        let phases = leader.state.runs.values().map(|run| format!("{:?}", run.head.phase));
        let gangs = self.gangs.iter().map(|(fence, it)| {
            let ranks: Vec<String> = it
                .members
                .iter()
                .map(|(rank, at)| {
                    let agent = &self.agents[at.agent];
                    format!("{rank} of {} at {} {:?}", it.ranks, agent.id, agent.life)
                })
                .collect();
            format!("{fence} lives: {ranks:?}")
        });
        phases.chain(open.take(8)).chain(gangs).collect::<Vec<_>>().join("; ")
    }
}
