//! What a run consists of: its works, and what each of them waits for.
//!
//! A plan is a pure function of the run document and the number of input tars, so coordinator,
//! workers and tests all derive the same one.

use crate::ids::{JobId, ModelId, Stage, WorkId};
use crate::spec::RunSpec;

/// More jobs per stage than this help nobody and make the state large.
const MAX_JOBS_PER_STAGE: u32 = 1024;

/// So many jobs keep a fleet busy; beyond them a job takes several tars, so that what it sorts to each
/// expert makes shards about as large as its tars.
const ENOUGH_JOBS: u32 = 64;

/// The shape of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    tars: u32,
    /// Tars of one embed, assign or shard job.
    per_group: u32,
    models: Vec<ModelId>,
}

impl Plan {
    pub fn new(spec: &RunSpec, tars: u32) -> Self {
        let by_expert = spec.spec.clusters.experts.min(tars.div_ceil(ENOUGH_JOBS));
        let per_group = tars.div_ceil(MAX_JOBS_PER_STAGE).max(by_expert).max(1);
        Self { tars, per_group, models: spec.models() }
    }

    /// Number of jobs of `stage`.
    pub fn jobs(&self, stage: Stage) -> u32 {
        match stage {
            Stage::Index => self.tars,
            Stage::Embed | Stage::Assign | Stage::Shard => self.tars.div_ceil(self.per_group),
            Stage::Catalog | Stage::Cluster | Stage::Seal | Stage::Report | Stage::Publish => 1,
            Stage::Evaluate => u32::try_from(self.models.len()).unwrap_or(u32::MAX),
        }
    }

    /// The input tars (as positions in the run's `inputs.json`) that one embed, assign or shard job reads.
    pub fn group(&self, part: u32) -> std::ops::Range<u32> {
        (part * self.per_group).min(self.tars)..((part + 1) * self.per_group).min(self.tars)
    }

    pub fn models(&self) -> &[ModelId] {
        &self.models
    }

    /// The model that evaluate job `part` encodes with.
    pub fn evaluated(&self, part: u32) -> Option<ModelId> {
        usize::try_from(part).ok().and_then(|part| self.models.get(part)).copied()
    }

    /// Every work of the run, jobs in stage order and models in their place between them.
    pub fn works(&self) -> Vec<WorkId> {
        let mut works = Vec::new();
        for stage in Stage::ALL {
            if stage == Stage::Evaluate {
                works.extend(self.models.iter().copied().map(WorkId::Model));
            }
            works.extend((0..self.jobs(stage)).map(|part| WorkId::job(stage, part)));
        }
        works
    }

    /// What must be done before `work` may start.
    pub fn needs(&self, work: WorkId) -> Vec<Need> {
        let same_part = |stage, part| Need::Work(WorkId::job(stage, part));
        match work {
            WorkId::Job(JobId { stage, part }) => match stage {
                Stage::Index => vec![],
                Stage::Catalog => vec![Need::Stage(Stage::Index)],
                Stage::Embed => vec![Need::Stage(Stage::Catalog)],
                Stage::Cluster => vec![Need::Stage(Stage::Embed)],
                Stage::Assign => vec![Need::Stage(Stage::Cluster), same_part(Stage::Embed, part)],
                Stage::Shard => vec![same_part(Stage::Assign, part)],
                Stage::Seal => vec![Need::Stage(Stage::Shard)],
                Stage::Evaluate => {
                    let model = self.evaluated(part).map(|model| Need::Work(WorkId::Model(model)));
                    std::iter::once(Need::Stage(Stage::Cluster)).chain(model).collect()
                }
                Stage::Report => vec![Need::Stage(Stage::Evaluate), Need::Stage(Stage::Seal)],
                Stage::Publish => vec![Need::Stage(Stage::Report)],
            },
            WorkId::Model(ModelId::Seed) => vec![Need::Stage(Stage::Catalog)],
            WorkId::Model(ModelId::Dense) => vec![Need::Work(WorkId::Model(ModelId::Seed))],
            WorkId::Model(ModelId::Expert(_)) => {
                vec![Need::Work(WorkId::Model(ModelId::Seed)), Need::Stage(Stage::Seal)]
            }
        }
    }

    /// The works that wait for `work`, and, if it was its stage's last, those that wait for the stage.
    pub fn dependents(&self, work: WorkId, is_stage_done: bool) -> Vec<WorkId> {
        let jobs = |stage| (0..self.jobs(stage)).map(move |part| WorkId::job(stage, part));
        let models = || self.models.iter().map(|&model| WorkId::Model(model));
        match work {
            WorkId::Model(model) => {
                let evaluated = jobs(Stage::Evaluate).zip(&self.models);
                let evaluated = evaluated.filter(|(_, it)| **it == model).map(|(job, _)| job);
                let heirs = models().filter(|it| model == ModelId::Seed && *it != work);
                evaluated.chain(heirs).collect()
            }
            WorkId::Job(JobId { stage, part }) => {
                let mut waiting = match stage {
                    Stage::Embed => vec![WorkId::job(Stage::Assign, part)],
                    Stage::Assign => vec![WorkId::job(Stage::Shard, part)],
                    Stage::Index
                    | Stage::Catalog
                    | Stage::Cluster
                    | Stage::Shard
                    | Stage::Seal
                    | Stage::Evaluate
                    | Stage::Report
                    | Stage::Publish => vec![],
                };
                if is_stage_done {
                    match stage {
                        Stage::Index => waiting.extend(jobs(Stage::Catalog)),
                        Stage::Catalog => {
                            waiting.extend(jobs(Stage::Embed));
                            waiting.push(WorkId::Model(ModelId::Seed));
                        }
                        Stage::Embed => waiting.extend(jobs(Stage::Cluster)),
                        Stage::Cluster => {
                            waiting.extend(jobs(Stage::Assign).chain(jobs(Stage::Evaluate)));
                        }
                        Stage::Shard => waiting.extend(jobs(Stage::Seal)),
                        Stage::Seal => {
                            let is_expert =
                                |it: &WorkId| matches!(it, WorkId::Model(ModelId::Expert(_)));
                            waiting.extend(models().filter(is_expert));
                            waiting.extend(jobs(Stage::Report));
                        }
                        Stage::Evaluate => waiting.extend(jobs(Stage::Report)),
                        Stage::Report => waiting.extend(jobs(Stage::Publish)),
                        Stage::Assign | Stage::Publish => (),
                    }
                }
                waiting
            }
        }
    }

    /// The models whose last checkpoint `work` reads.
    pub fn reads(&self, work: WorkId) -> Vec<ModelId> {
        match work {
            WorkId::Job(JobId { stage, part }) => match stage {
                Stage::Evaluate => self.evaluated(part).into_iter().collect(),
                Stage::Report | Stage::Publish => self.models.clone(),
                Stage::Index
                | Stage::Catalog
                | Stage::Embed
                | Stage::Cluster
                | Stage::Assign
                | Stage::Shard
                | Stage::Seal => vec![],
            },
            WorkId::Model(ModelId::Seed) => vec![],
            WorkId::Model(ModelId::Dense | ModelId::Expert(_)) => vec![ModelId::Seed],
        }
    }
}

/// One thing that must be done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Every job of a stage.
    Stage(Stage),
    Work(WorkId),
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stage(stage) => stage.fmt(f),
            Self::Work(work) => work.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(tars: u32) -> Plan {
        let document = include_str!("../../deploy/demo/run.yaml");
        Plan::new(&RunSpec::parse(document).unwrap(), tars)
    }

    #[test]
    fn the_groups_of_tars_cover_each_tar_exactly_once() {
        for tars in [1, 7, 1024, 1025, 5000] {
            let plan = plan(tars);
            let jobs = plan.jobs(Stage::Shard);
            assert!(jobs <= MAX_JOBS_PER_STAGE);
            let covered: Vec<u32> = (0..jobs).flat_map(|part| plan.group(part)).collect();
            assert_eq!(covered, (0..tars).collect::<Vec<_>>(), "{tars} tars");
        }
    }

    #[test]
    fn a_job_takes_as_many_tars_as_there_are_experts_once_there_are_jobs_enough() {
        // The demo has four experts.
        for (tars, per_job) in [(7, 1), (64, 1), (65, 2), (200, 4), (1_000, 4), (5_000, 5)] {
            assert_eq!(plan(tars).group(0), 0..per_job, "{tars} tars");
        }
    }

    #[test]
    fn the_dependents_of_a_work_are_those_that_need_it() {
        let plan = plan(70);
        for work in plan.works() {
            let told: std::collections::BTreeSet<WorkId> =
                plan.dependents(work, true).into_iter().collect();
            let is_needed = |need: &Need| match *need {
                Need::Work(it) => it == work,
                Need::Stage(stage) => {
                    matches!(work, WorkId::Job(job) if job.stage == stage)
                }
            };
            let works = plan.works().into_iter();
            let needing = works.filter(|it| plan.needs(*it).iter().any(is_needed)).collect();
            assert_eq!(told, needing, "{work}");
        }
    }

    #[test]
    fn every_work_can_be_reached_in_order() {
        let plan = plan(3);
        let mut done: Vec<WorkId> = Vec::new();
        let mut left = plan.works();
        while !left.is_empty() {
            let is_met = |need: &Need| match need {
                Need::Work(work) => done.contains(work),
                Need::Stage(stage) => {
                    (0..plan.jobs(*stage)).all(|part| done.contains(&WorkId::job(*stage, part)))
                }
            };
            let (ready, rest): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|work| plan.needs(*work).iter().all(is_met));
            assert!(!ready.is_empty(), "{rest:?} wait for ever");
            done.extend(ready);
            left = rest;
        }
        assert_eq!(done.len(), plan.works().len());
    }
}
