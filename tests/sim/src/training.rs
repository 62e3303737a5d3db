//! The ranks' processes: gangs that meet, step together, save and leave; jobs that end.

use std::collections::{BTreeMap, BTreeSet};

use clade_core::ids::{CheckpointRef, Fence, ModelId, Stage, Step, WorkId};
use clade_core::job::{Failure, Outcome};
use clade_core::rendezvous::Rendezvous;
use clade_core::schedule::{Event, Start};

use crate::agent::Life;
use crate::world::{Happening, World};

/// Steps between two looks at a gang, and between two checkpoints.
const STRIDE: u64 = 4;
const CHECKPOINT_EVERY: u64 = 9;

/// One rank's process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) agent: usize,
    pub(crate) machine: usize,
    slot: u32,
}

/// All processes of one fence.
#[derive(Debug)]
pub(crate) struct Training {
    pub(crate) ranks: u32,
    pub(crate) members: BTreeMap<u32, Process>,
    met: BTreeSet<u32>,
    is_turning: bool,
    pub(crate) step: u64,
    pub(crate) due: u64,
    written: u64,
    parent: Option<CheckpointRef>,
    is_saving: bool,
    is_finishing: bool,
    pub(crate) is_hung: bool,
    is_putting: bool,
}

impl World {
    /// Starts a rank's process: its seat is locked already.
    pub(crate) fn launch(&mut self, agent: usize, start: Start) {
        let Start { seat, fence, rank, ranks, resume, fallbacks, models, rendezvous, .. } = start;
        let machine = self.agents[agent].machine;
        let process = Process { agent, machine, slot: seat.slot };
        self.judge.launched(&fence, rank);
        let is_bad = self.machines[machine].bad_until > self.now;
        if is_bad {
            let outcome = crashed(rank, "signal 7");
            let at = self.now + 50 + self.random.below(400);
            self.at(at, Happening::RankEnds { fence: fence.clone(), rank, outcome });
        }
        let Some(model) = fence.work.model() else {
            let slowness = self.machines[machine].slowness;
            let at = self.now + (200 + self.random.below(1_800)) * slowness;
            let counts = self.counts(&fence);
            let training = Training::of(ranks, None, 0, 0);
            self.gangs.entry(fence.clone()).or_insert(training).members.insert(rank, process);
            let outcome = Outcome::Done { counts };
            self.at(at, Happening::RankEnds { fence, rank, outcome });
            return;
        };
        // The newest whose bytes are what their digests say.
        let own = resume.iter().chain(&fallbacks);
        let found = own.chain(models.get(&ModelId::Seed)).find(|at| {
            self.bucket.find(&fence.run, at).is_some_and(|it| !it.is_damaged && !it.is_deleted)
        });
        let parent = found.cloned();
        let from = parent.as_ref().map_or(0, |at| at.step.0);
        let due = self.due(&fence, model);
        self.trace(|_| format!("{fence} rank {rank} starts at {from} of {due}"));
        if parent.is_none() && model != ModelId::Seed {
            let message = "no sound checkpoint to start from".to_owned();
            let outcome = Outcome::Failed(Failure::Storage { message });
            let at = self.now + 100;
            self.at(at, Happening::RankEnds { fence: fence.clone(), rank, outcome });
        }
        let training = self
            .gangs
            .entry(fence.clone())
            .or_insert_with(|| Training::of(ranks, parent.clone(), from, due));
        let is_same = training.parent == parent && training.step == from;
        training.members.insert(rank, process);
        let agrees = is_same && training.ranks == ranks && training.due == due;
        let is_complete = training.members.len() == usize::try_from(ranks).unwrap_or(usize::MAX);
        if is_complete && !std::mem::replace(&mut training.is_turning, true) {
            self.at(self.now + 100, Happening::Turn(fence.clone()));
        }
        // One rank may have read what was damaged before the next did.
        let was_damaged = self.judge.is_damaged(&fence.run, model);
        if !agrees && !was_damaged && self.judge.is_whole(&fence) {
            self.broke(format!("G1: the ranks of {fence} do not start from the same checkpoint"));
        }
        if rank == 0 {
            let at = self.now + 80 + self.random.below(300);
            self.at(at, Happening::Listens(fence.clone()));
        }
        if let Some(address) = rendezvous {
            self.meets(&fence, rank, &address);
        }
    }

    fn counts(&self, fence: &Fence) -> BTreeMap<String, u64> {
        let is_seal = matches!(fence.work, WorkId::Job(job) if job.stage == Stage::Seal);
        if !is_seal {
            return [("pairs".to_owned(), 1)].into();
        }
        (0..200)
            .map(|expert| (format!("pairs.expert-{expert}"), 500 + 300 * (expert % 5)))
            .collect()
    }

    /// The step at which a model is done, as its rank derives it from the run's own files.
    pub(crate) fn due(&self, fence: &Fence, model: ModelId) -> u64 {
        let spec = self.setting.runs.iter().find(|it| *it.name() == fence.run);
        let sealed = self.counts(&Fence { work: WorkId::job(Stage::Seal, 0), ..fence.clone() });
        spec.map_or(0, |spec| {
            let pairs = clade_core::spec::expert_pairs(&sealed, spec.spec.clusters.experts);
            spec.due(model, &pairs).0
        })
    }

    /// Rank 0 listens, and says where.
    pub(crate) fn listens(&mut self, fence: &Fence) {
        let Some(process) = self.gangs.get(fence).and_then(|it| it.members.get(&0)).cloned() else {
            return;
        };
        let at = format!("{}:{}", self.machines[process.machine].node(), fence.incarnation);
        let address = Rendezvous::new(&at, "secret");
        self.meets(fence, 0, &address);
        let worker = self.agents[process.agent].id.clone();
        self.owe(process.agent, Event::RendezvousPosted { worker, fence: fence.clone(), address });
    }

    pub(crate) fn meets(&mut self, fence: &Fence, rank: u32, address: &Rendezvous) {
        if !address.address().ends_with(&format!(":{}", fence.incarnation)) {
            self.broke(format!("{fence} rank {rank} was told to meet at {address:?}"));
        }
        if let Some(training) = self.gangs.get_mut(fence) {
            training.met.insert(rank);
        }
    }

    /// A gang's next few steps.
    pub(crate) fn turn(&mut self, fence: &Fence) {
        let pace = self.setting.pace;
        let Some(training) = self.gangs.get(fence) else { return };
        let slowest = training
            .members
            .values()
            .map(|it| self.machines[it.machine].slowness)
            .max()
            .unwrap_or(1);
        let next = self.now + STRIDE * pace * slowest;
        self.at(next, Happening::Turn(fence.clone()));
        let Some(training) = self.gangs.get_mut(fence) else { return };
        let is_complete =
            training.members.len() == usize::try_from(training.ranks).unwrap_or(usize::MAX);
        let has_met = training.met.len() == training.members.len();
        if !is_complete
            || !has_met
            || training.is_hung
            || training.is_putting
            || training.is_finishing
        {
            return;
        }
        training.step = (training.step + STRIDE).min(training.due);
        let (step, is_last) = (training.step, training.step == training.due);
        let is_due = is_last || training.is_saving || step >= training.written + CHECKPOINT_EVERY;
        training.is_putting = is_due;
        let parent = training.parent.clone();
        let members: Vec<(u32, Process)> =
            training.members.iter().map(|(rank, it)| (*rank, it.clone())).collect();
        self.judge.stepped(fence, self.now);
        for (rank, process) in members {
            let worker = self.agents[process.agent].id.clone();
            let busy_us = pace * 1_000 * self.machines[process.machine].slowness;
            let fence = fence.clone();
            let event = Event::Progressed { worker, fence, rank, done: step, busy_us };
            self.say(process.agent, event);
        }
        if is_due {
            let at = self.now + 20 + self.random.below(300);
            self.at(at, Happening::Put { fence: fence.clone(), step, parent, tries: 0 });
        }
    }

    /// A checkpoint's manifest gets to the object store, or does not.
    pub(crate) fn put(
        &mut self,
        fence: &Fence,
        step: u64,
        parent: Option<CheckpointRef>,
        tries: u32,
    ) {
        let Some(model) = fence.work.model() else { return };
        let writer = self.gangs.get(fence).and_then(|it| it.members.get(&0)).cloned();
        if self.bucket.fails_until > self.now {
            if writer.is_some() && tries < 3 {
                let at = self.now + 300;
                self.at(
                    at,
                    Happening::Put { fence: fence.clone(), step, parent, tries: tries + 1 },
                );
            } else if writer.is_some() {
                let message = "503 slow down".to_owned();
                self.rank_ends(fence, 0, Outcome::Failed(Failure::Storage { message }));
            }
            return;
        }
        if writer.is_none() {
            // The request was under way when its process died.
            if self.random.below(2) == 0 {
                let late =
                    self.bucket.create(&fence.run, model, fence.incarnation, Step(step), parent);
                self.trace(|_| format!("{late} appears late"));
            }
            return;
        }
        let at = self.bucket.create(&fence.run, model, fence.incarnation, Step(step), parent);
        let Some(training) = self.gangs.get_mut(fence) else { return };
        (training.parent, training.written, training.is_putting) = (Some(at.clone()), step, false);
        let (is_saving, is_last) = (training.is_saving, training.step == training.due);
        training.is_finishing = is_saving || is_last;
        let ranks: Vec<u32> = training.members.keys().copied().collect();
        if let Some(process) = writer {
            let worker = self.agents[process.agent].id.clone();
            let (fence, checkpoint) = (fence.clone(), at);
            self.owe(process.agent, Event::CheckpointReported { worker, fence, checkpoint });
        }
        if is_saving || is_last {
            for rank in ranks {
                let outcome = if is_last {
                    Outcome::Done { counts: BTreeMap::new() }
                } else {
                    Outcome::Stopped
                };
                let at = self.now + 10 + self.random.below(300);
                self.at(at, Happening::RankEnds { fence: fence.clone(), rank, outcome });
            }
        }
    }

    /// A rank is asked to save and leave: its gang does so together, or it is killed.
    pub(crate) fn wish_save(&mut self, fence: &Fence, rank: u32) {
        let patience = if fence.work.model().is_some() { 3_000 } else { 100 };
        let Some(training) = self.gangs.get_mut(fence) else { return };
        training.is_saving = true;
        let at = self.now + patience + self.random.below(500);
        self.at(at, Happening::RankEnds { fence: fence.clone(), rank, outcome: Outcome::Stopped });
    }

    /// SIGKILL, and then the device's memory drains.
    pub(crate) fn kill(&mut self, fence: &Fence, rank: u32) {
        let at = self.now + 30 + self.random.below(700);
        self.at(at, Happening::RankEnds { fence: fence.clone(), rank, outcome: Outcome::Stopped });
    }

    /// A rank's process is gone.
    pub(crate) fn rank_ends(&mut self, fence: &Fence, rank: u32, outcome: Outcome) {
        let Some(training) = self.gangs.get_mut(fence) else { return };
        let Some(process) = training.members.remove(&rank) else { return };
        let is_torn =
            !training.is_finishing && matches!(outcome, Outcome::Failed(_) | Outcome::Stopped);
        let left: Vec<u32> = training.members.keys().copied().collect();
        let is_over = left.is_empty();
        self.machines[process.machine].locks.remove(&process.slot);
        self.judge.ended(fence, rank, &outcome);
        self.trace(|_| format!("{fence} rank {rank} ends: {outcome:?}"));
        if is_over {
            self.gangs.remove(fence);
        }
        if is_torn {
            for rank in left {
                let at = self.now + 100 + self.random.below(1_400);
                let outcome = Outcome::Failed(Failure::PeerLost { rank });
                self.at(at, Happening::RankEnds { fence: fence.clone(), rank, outcome });
            }
        }
        if self.agents[process.agent].life != Life::Gone {
            self.rank_ended(process.agent, (fence.clone(), rank), outcome);
        }
    }
}

impl Training {
    fn of(ranks: u32, parent: Option<CheckpointRef>, step: u64, due: u64) -> Self {
        Self {
            ranks,
            members: BTreeMap::new(),
            met: BTreeSet::new(),
            is_turning: false,
            step,
            due,
            written: step,
            parent,
            is_saving: false,
            is_finishing: false,
            is_hung: false,
            is_putting: false,
        }
    }
}

pub(crate) fn crashed(rank: u32, message: &str) -> Outcome {
    Outcome::Failed(Failure::Crashed { rank, message: message.to_owned() })
}
