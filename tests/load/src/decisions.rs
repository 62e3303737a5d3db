//! How fast the scheduler decides: a fleet of 10,000 workers whose agents answer at once.
//!
//! An event's time is all that a coordinator spends on it before it saves: the step, the invariants
//! it checks in production, and the rows of what changed as JSON. Events that change nothing in the
//! store are not counted, and what they take is counted all the same.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use clade_core::ids::{
    CheckpointRef, Digest, Fence, Millis, ModelId, NodeName, RunName, Seat, Step, Term, WorkId,
    WorkerId,
};
use clade_core::job::Outcome;
use clade_core::order::Random;
use clade_core::schedule::invariants::{About, violations};
use clade_core::schedule::{Action, Event, Limits, Object, Offer, Phase, State, step};
use serde::Serialize;

use crate::documents::{Shape, spec};
use crate::mark::{Sorted, mark, millis, say};

/// Measures the scheduler alone.
#[derive(Debug, clap::Args)]
pub(crate) struct DecisionsArgs {
    /// Workers, each a node of eight slots
    #[arg(long, default_value_t = 10_000)]
    workers: u32,
    /// Runs; models are dealt out evenly
    #[arg(long, default_value_t = 10)]
    runs: u32,
    /// Models of all runs together
    #[arg(long, default_value_t = 1_000)]
    models: u32,
    /// State-changing events after which it ends
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// Decides which workers are lost
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Workers that are lost in each round, in which every model commits once.
const LOST_PER_ROUND: u64 = 100;

/// Gangs are as wide as one node, and up to sixteen of them.
const WIDTHS: [u32; 5] = [8, 16, 32, 64, 128];

impl DecisionsArgs {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        say(format_args!(
            "decisions: {} workers of 8 slots, {} models in {} runs, seed {}",
            self.workers, self.models, self.runs, self.seed
        ));
        let mut fleet = Fleet::default();
        fleet.tell(Event::TookLead { term: Term(1) });
        for at in 0..self.workers {
            fleet.join(at, 0);
        }
        for (at, ranks) in (0..self.runs).zip(WIDTHS.iter().cycle()) {
            // The seed and the dense baseline are models, too.
            let experts = (self.models / self.runs).saturating_sub(2).max(1);
            let spec = Box::new(spec(&format!("run-{at}"), Shape { experts, ranks: *ranks })?);
            fleet.tell(Event::Applied { spec, tars: 400 });
        }
        fleet.settle();
        let mut random = Random::new(self.seed);
        let mut generation = 0;
        while fleet.counted() < self.events && !fleet.running().is_empty() {
            generation += 1;
            fleet.round(&mut random, generation, self.workers);
        }
        fleet.report();
        Ok(())
    }
}

/// The state, the agents that obey it, and how long each kind of event took.
struct Fleet {
    state: State,
    now: Millis,
    /// What agents and the store have to say.
    queue: VecDeque<Event>,
    ranks: BTreeMap<Seat, (Fence, u32)>,
    /// Times of events that changed rows, by name.
    times: BTreeMap<&'static str, Vec<Duration>>,
    /// Times of those that changed none.
    idle: Vec<Duration>,
    bytes: usize,
    broken: usize,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            state: State::default(),
            now: Millis(1_700_000_000_000),
            queue: VecDeque::new(),
            ranks: BTreeMap::new(),
            times: BTreeMap::new(),
            idle: Vec::new(),
            bytes: 0,
            broken: 0,
        }
    }
}

impl Fleet {
    fn counted(&self) -> usize {
        self.times.values().map(Vec::len).sum()
    }

    /// One event, timed; then whoever was ordered something is about to answer.
    fn tell(&mut self, event: Event) -> bool {
        let name = event.name();
        let begun = Instant::now();
        let about = About::of(&event);
        let effects = step(&mut self.state, Limits::default(), self.now, event);
        let broken = violations(&about, &effects, &self.state);
        let rows: Vec<(String, Option<Vec<u8>>)> =
            effects.changed.iter().map(|object| row(&self.state, object)).collect();
        let took = begun.elapsed();
        for violation in &broken {
            say(format_args!("broken by {name}: {}: {}", violation.invariant, violation.seen));
        }
        self.broken += broken.len();
        self.bytes += rows.iter().filter_map(|(_, row)| Some(row.as_ref()?.len())).sum::<usize>();
        if rows.is_empty() {
            self.idle.push(took);
        } else {
            self.times.entry(name).or_default().push(took);
        }
        effects.actions.into_iter().for_each(|action| self.obey(action));
        effects.more
    }

    /// What agents and the store do at once.
    fn obey(&mut self, action: Action) {
        match action {
            Action::StartRank(start) => {
                let worker = start.seat.worker.clone();
                let (fence, rank) = (start.fence, start.rank);
                if fence.work.model().is_none() {
                    let counts = [("pairs".to_owned(), 10_000)].into();
                    let outcome = Outcome::Done { counts };
                    self.queue.push_back(Event::RankExited { worker, fence, rank, outcome });
                    return;
                }
                self.ranks.insert(start.seat, (fence.clone(), rank));
                if rank == 0 {
                    let address = format!("{worker}:29500");
                    self.queue.push_back(Event::RendezvousPosted {
                        worker,
                        fence,
                        address: address.into(),
                    });
                }
            }
            Action::StopRank { seat, fence, rank, .. } => {
                if self.ranks.remove(&seat).is_some() {
                    let (worker, outcome) = (seat.worker, Outcome::Stopped);
                    self.queue.push_back(Event::RankExited { worker, fence, rank, outcome });
                }
            }
            Action::Inspect { fence } => {
                self.queue.push_back(Event::Inspected { fence, newest: None });
            }
            Action::ShareRendezvous { .. }
            | Action::Collect { .. }
            | Action::Refuse { .. }
            | Action::Supersede { .. } => (),
        }
    }

    /// A second passes at a time until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            while let Some(event) = self.queue.pop_front() {
                self.tell(event);
            }
            if !self.tell(Event::Tick) && self.queue.is_empty() {
                return;
            }
        }
    }

    /// Two minutes in which every model commits and some workers are lost and replaced.
    fn round(&mut self, random: &mut Random, generation: u32, workers: u32) {
        for _ in 0..LOST_PER_ROUND {
            let at = u32::try_from(random.below(u64::from(workers))).unwrap_or(0);
            let Some(worker) = self.state.workers.keys().nth(at as usize).cloned() else {
                continue;
            };
            self.ranks.retain(|seat, _| seat.worker != worker);
            self.tell(Event::WorkerDetached { worker });
            self.join(at, generation);
        }
        // Their time is over; then the rests of their gangs are.
        for _ in 0..100 {
            self.now = Millis(self.now.0 + 1_000);
            self.settle();
        }
        let running: Vec<(RunName, WorkId, Fence)> = self.running();
        for (run, work, fence) in running {
            self.advance(&run, work, &fence);
        }
        self.settle();
    }

    /// A fresh agent on a machine.
    fn join(&mut self, at: u32, generation: u32) {
        let node = format!("node-{at:05}");
        let offer = Offer {
            node: NodeName(node.clone()),
            host: node.clone(),
            domain: format!("rack-{:03}", at / 16),
            pid: 4_242,
            slots: 8,
            kind: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_mib: 81_559,
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            secret: "00112233445566778899aabbccddeeff".to_owned(),
        };
        let worker = WorkerId(format!("{node}-{generation:08x}"));
        let (withdrawn, ranks) = (BTreeMap::new(), Vec::new());
        self.tell(Event::WorkerAttached { worker, offer, withdrawn, ranks });
    }

    fn running(&self) -> Vec<(RunName, WorkId, Fence)> {
        let runs = self.state.runs.iter().flat_map(|(name, run)| {
            let running = run.works.iter().filter(|(id, work)| {
                id.model().is_some() && matches!(work.phase, Phase::Running(_))
            });
            running.filter_map(|(id, _)| Some((name.clone(), *id, run.fence(*id)?)))
        });
        runs.collect()
    }

    /// A model takes steps and commits; one that has come to its last step ends.
    fn advance(&mut self, run: &RunName, work: WorkId, fence: &Fence) {
        let Some(model) = work.model() else { return };
        let Some(found) = self.state.runs.get(run) else { return };
        let due = found.due(model);
        let done = self.state.work(run, work).map_or(0, |work| work.committed_step().0);
        let next = if model == ModelId::Seed { due } else { due.min(Step(done + 2_000)) };
        let Some(worker) = self.state.seat(fence, 0).map(|seat| seat.worker.clone()) else {
            return;
        };
        let checkpoint = CheckpointRef {
            model,
            incarnation: fence.incarnation,
            step: next,
            manifest: Digest([7; 32]),
        };
        self.tell(Event::CheckpointReported { worker, fence: fence.clone(), checkpoint });
        if next < due {
            return;
        }
        let seats =
            self.state.work(run, work).and_then(|work| work.gang()).map(|it| it.seats.clone());
        for (rank, seat) in (0..).zip(seats.into_iter().flatten()) {
            self.ranks.remove(&seat);
            let outcome = Outcome::Done { counts: BTreeMap::new() };
            let (worker, fence) = (seat.worker, fence.clone());
            self.queue.push_back(Event::RankExited { worker, fence, rank, outcome });
        }
    }

    fn report(&self) {
        say(format_args!(
            "{:<20} {:>8} {:>10} {:>10} {:>10}",
            "event", "count", "mean us", "p99 us", "max us"
        ));
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let line = |name: &str, times: &Sorted| {
            let mean = micros(times.total()) / times.len().max(1) as f64;
            say(format_args!(
                "{name:<20} {:>8} {mean:>10.1} {:>10.1} {:>10.1}",
                times.len(),
                micros(times.at(99.0)),
                micros(times.at(100.0))
            ));
        };
        for (name, times) in &self.times {
            line(name, &Sorted::new(times.clone()));
        }
        let idle = Sorted::new(self.idle.clone());
        line("(changed nothing)", &idle);
        let all = Sorted::new(self.times.values().flatten().copied().collect());
        let seconds = (all.total() + idle.total()).as_secs_f64();
        let mib = self.bytes as f64 / 1_048_576.0;
        say(format_args!(
            "{} state-changing events in {seconds:.1} s of deciding, {mib:.0} MiB of rows; one takes \
             p50 {:.3} ms, p99 {:.3} ms, max {:.1} ms; broken invariants: {}",
            all.len(),
            millis(all.at(50.0)),
            millis(all.at(99.0)),
            millis(all.at(100.0)),
            self.broken
        ));
        let running = self.running().len();
        say(format_args!("models running at the end: {running}"));
        let rate = all.len() as f64 / seconds;
        mark("core_decisions_per_second", rate, "/s", 10_000.0);
    }
}

/// The row of one object, as `coordinator/src/state/codec.rs` writes it.
fn row(state: &State, object: &Object) -> (String, Option<Vec<u8>>) {
    fn json<T: Serialize>(value: Option<T>) -> Option<Vec<u8>> {
        value.map(|value| {
            serde_json::to_vec(&value)
                .expect("the scheduler's types hold only text, numbers and lists of them")
        })
    }
    match object {
        Object::Run(name) => {
            (format!("run/{name}"), json(state.runs.get(name).map(|run| &run.head)))
        }
        Object::Model(name, model) => {
            (format!("model/{name}/{model}"), json(state.work(name, WorkId::Model(*model))))
        }
        Object::Jobs(name, stage, chunk) => {
            let begun = state.begun(name, *stage, *chunk);
            (format!("jobs/{name}/{stage}/{chunk}"), json(Some(begun).filter(|it| !it.is_empty())))
        }
        Object::Worker(id) => (format!("worker/{id}"), json(state.workers.get(id))),
        Object::Node(name) => (format!("node/{name}"), json(state.nodes.get(name))),
    }
}
