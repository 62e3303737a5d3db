//! States in which every expert is ready to start: seed trained, shards sealed.

use std::collections::BTreeMap;

use clade_core::ids::{
    CheckpointRef, Digest, Incarnation, JobId, Millis, ModelId, RunName, Stage, Step, Term, WorkId,
    WorkerId,
};
use clade_core::schedule::{Phase, Run, RunHead, RunPhase, State, Work, Worker};
use clade_core::spec::RunSpec;

use crate::setting::EPOCH;

const DEMO: &str = include_str!("../../../../deploy/demo/run.yaml");

/// Micro-batches of 32 pairs: gangs of any power of two up to 1,024 may share them.
const GLOBAL_BATCH: u64 = 32_768;
pub(crate) const SEED_STEPS: u64 = 100;

/// One run whose experts differ in length.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    pub(crate) name: String,
    pub(crate) ranks: u32,
    /// The fewest ranks its gangs may have.
    pub(crate) least: u32,
    /// Milliseconds per step of a gang with all its ranks; one with half of them takes twice as long.
    pub(crate) step_ms: u64,
    /// What its seed's steps took, if that differs enough to be told: the seed trained before all experts.
    pub(crate) shown_ms: Option<u64>,
    /// Steps of each expert.
    pub(crate) steps: Vec<u64>,
    /// Of these, steps that are committed already.
    pub(crate) begun: Vec<u64>,
}

impl RunPlan {
    fn spec(&self) -> RunSpec {
        let experts = self.steps.len();
        let pairs: u64 = self.steps.iter().map(|steps| steps * GLOBAL_BATCH).sum();
        let least = match self.least {
            least if least < self.ranks => format!(" minRanks: {least},"),
            _ => String::new(),
        };
        let document = DEMO
            .replace("name: clipart", &format!("name: {}", self.name))
            .replace("experts: 4", &format!("experts: {experts}"))
            .replace("fine: 64", &format!("fine: {}", 64.max(experts)))
            .replace("globalBatch: 128", &format!("globalBatch: {GLOBAL_BATCH}"))
            .replace("microBatch: 64", "microBatch: 32")
            .replace("seedSteps: 288", &format!("seedSteps: {SEED_STEPS}"))
            .replace("expertSteps: 144", &format!("expertSteps: {{proportional: {pairs}}}"))
            .replace("[dense]", "[]")
            .replace("expert: {ranks: 1,", &format!("expert: {{ranks: {},{least}", self.ranks));
        RunSpec::parse(&document).unwrap_or_else(|error| panic!("{error}: {document}"))
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let counts = self.steps.iter().enumerate();
        counts.map(|(at, steps)| (format!("pairs.expert-{at}"), steps * GLOBAL_BATCH)).collect()
    }
}

/// A checkpoint of no content: the scheduler only compares it.
pub(crate) const fn checkpoint(
    model: ModelId,
    incarnation: Incarnation,
    step: u64,
) -> CheckpointRef {
    CheckpointRef { model, incarnation, step: Step(step), manifest: Digest([0; 32]) }
}

fn done(counts: BTreeMap<String, u64>) -> Work {
    Work { phase: Phase::Done, counts, ..Work::new() }
}

/// A leader's state with these runs and workers.
pub(crate) fn ready(plans: &[RunPlan], workers: BTreeMap<WorkerId, Worker>) -> State {
    let mut heads = Vec::new();
    let mut works: Vec<(RunName, WorkId, Work)> = Vec::new();
    for plan in plans {
        let spec = plan.spec();
        let name = spec.name().clone();
        let (phase, created) = (RunPhase::Active, Millis(EPOCH));
        let head = RunHead { spec, tars: 1, phase, created, ended: None };
        for id in Run::new(head.clone()).plan().works() {
            let work = match id {
                WorkId::Job(JobId { stage: Stage::Seal, .. }) => done(plan.counts()),
                // The seed, the first of the models, is evaluated.
                WorkId::Job(JobId { stage: Stage::Evaluate, part }) if part > 0 => continue,
                WorkId::Job(JobId { stage: Stage::Report | Stage::Publish, .. }) => continue,
                WorkId::Job(_) => done(BTreeMap::new()),
                WorkId::Model(ModelId::Seed) => {
                    let seed = checkpoint(ModelId::Seed, Incarnation(1), SEED_STEPS);
                    let pace = plan.shown_ms.map(|shown| shown * 1_000);
                    Work { committed: vec![seed], pace, ..done(BTreeMap::new()) }
                }
                WorkId::Model(ModelId::Dense) => continue,
                WorkId::Model(ModelId::Expert(at)) => {
                    let at = usize::try_from(at).expect("few experts");
                    let Some(&begun) = plan.begun.get(at).filter(|begun| **begun > 0) else {
                        continue;
                    };
                    let model = ModelId::Expert(u32::try_from(at).expect("few experts"));
                    let newest = checkpoint(model, Incarnation(1), SEED_STEPS + begun);
                    let incarnation = Incarnation(2);
                    Work { committed: vec![newest], incarnation, ..Work::new() }
                }
            };
            works.push((name.clone(), id, work));
        }
        heads.push(head);
    }
    State::restore(Term(1), heads, works, workers, BTreeMap::new())
}
