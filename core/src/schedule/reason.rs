//! Why a work is not running, typed, as `clade status` shows it.

use std::fmt;

use super::{Phase, RunPhase, State, placement};
use crate::ids::{Millis, RunName, WorkId};
use crate::job::Failure;
use crate::plan::Need;

/// What a work waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Other works must be done first.
    For {
        needs: Vec<Need>,
    },
    /// Something it needs has failed for good.
    BlockedBy {
        work: WorkId,
    },
    /// A gang that was here first is not seated yet.
    Behind {
        work: WorkId,
    },
    Seats {
        needed: u32,
        free: u32,
        workers: u32,
    },
    Backoff {
        left: Millis,
        after: Option<Failure>,
    },
    RunStopping,
    RunEnded,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For { needs } => {
                f.write_str("waits for ")?;
                for (position, need) in needs.iter().enumerate() {
                    let comma = if position == 0 { "" } else { ", " };
                    write!(f, "{comma}{need}")?;
                }
                Ok(())
            }
            Self::BlockedBy { work } => write!(f, "cannot start: {work} has failed"),
            Self::Behind { work } => write!(f, "{work} goes first"),
            Self::Seats { workers: 0, .. } => f.write_str("no worker is attached"),
            Self::Seats { needed, free, .. } => {
                write!(f, "needs {needed} seat{}, {free} free", if *needed == 1 { "" } else { "s" })
            }
            Self::Backoff { left, after } => {
                write!(f, "tries again in {} s", left.0.div_ceil(1000))?;
                after.as_ref().map_or(Ok(()), |after| write!(f, " after: {after}"))
            }
            Self::RunStopping => f.write_str("the run is stopping"),
            Self::RunEnded => f.write_str("the run has ended"),
        }
    }
}

/// Says why `work` is not running; nothing if it is, or is done, or has failed itself.
pub fn why_waiting(state: &State, run: &RunName, work: WorkId, now: Millis) -> Option<Wait> {
    let run = state.runs.get(run)?;
    let found = run.works.get(&work)?;
    match &found.phase {
        Phase::Waiting => (),
        Phase::Backoff { until } => {
            let left = Millis(until.0.saturating_sub(now.0));
            return Some(Wait::Backoff { left, after: found.last_failure.clone() });
        }
        Phase::Running(_)
        | Phase::Stopping { .. }
        | Phase::Inspecting { .. }
        | Phase::Done
        | Phase::Failed { .. } => return None,
    }
    match run.head.phase {
        RunPhase::Active => (),
        RunPhase::Stopping { .. } => return Some(Wait::RunStopping),
        RunPhase::Finished | RunPhase::Failed { .. } | RunPhase::Cancelled => {
            return Some(Wait::RunEnded);
        }
    }
    let needs = run.missing(work, &run.plan(), &run.done_stages());
    if let Some(failed) = needs.iter().find_map(|need| failed_in(run, *need)) {
        return Some(Wait::BlockedBy { work: failed });
    }
    if !needs.is_empty() {
        return Some(Wait::For { needs });
    }
    let ahead = placement::ready(state).into_iter().find(|it| it.work.model().is_some());
    if let (Some(ahead), Some(_)) = (&ahead, work.model())
        && (&ahead.run, ahead.work) != (run.name(), work)
    {
        return Some(Wait::Behind { work: ahead.work });
    }
    let free = placement::free_slots(state);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(Wait::Seats {
        needed: run.ranks(work),
        free: count(free.values().map(Vec::len).sum()),
        workers: count(free.len()),
    })
}

fn failed_in(run: &super::Run, need: Need) -> Option<WorkId> {
    let is_failed = |id: &WorkId| {
        run.works.get(id).is_some_and(|work| matches!(work.phase, Phase::Failed { .. }))
    };
    match need {
        Need::Work(work) => Some(work).filter(is_failed),
        Need::Stage(stage) => run
            .works
            .keys()
            .find(|id| matches!(id, WorkId::Job(job) if job.stage == stage) && is_failed(id))
            .copied(),
    }
}
