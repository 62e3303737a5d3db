//! Why a work is not running, typed, as `clade status` shows it.

use std::fmt;

use super::{Phase, RunPhase, State};
use crate::ids::{Millis, RunName, WorkId};
use crate::job::Failure;
use crate::plan::Need;
use crate::spec::Requires;

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
        run: RunName,
        work: WorkId,
    },
    /// No worker is attached.
    NoWorkers,
    /// It needs more seats than all workers that would do have together.
    TooWide {
        needed: u32,
        capacity: u32,
        requires: Requires,
    },
    /// Seats that would do are taken, or their nodes are cordoned or in quarantine.
    Seats {
        needed: u32,
        free: u32,
        closed_nodes: u32,
    },
    Backoff {
        left: Millis,
        after: Option<Failure>,
    },
    RunStopping,
    RunEnded,
}

impl Wait {
    /// A name for programs: one of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::For { .. } => "for",
            Self::BlockedBy { .. } => "blocked_by",
            Self::Behind { .. } => "behind",
            Self::NoWorkers => "no_workers",
            Self::TooWide { .. } => "too_wide",
            Self::Seats { .. } => "seats",
            Self::Backoff { .. } => "backoff",
            Self::RunStopping => "run_stopping",
            Self::RunEnded => "run_ended",
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |count: u32| if count == 1 { "" } else { "s" };
        match self {
            Self::For { needs } => {
                let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
                write!(f, "waits for {}", needs.join(", "))
            }
            Self::BlockedBy { work } => write!(f, "cannot start: {work} has failed"),
            Self::Behind { work, run: _ } => write!(f, "{work} goes first"),
            Self::NoWorkers => f.write_str("no worker is attached"),
            Self::TooWide { needed, capacity, requires } => {
                write!(f, "needs {needed} seat{}", s(*needed))?;
                if !requires.is_empty() {
                    write!(f, " with {requires}")?;
                }
                write!(f, ", the cluster has {capacity}")
            }
            Self::Seats { needed, free, closed_nodes } => {
                write!(f, "needs {needed} seat{}, {free} free", s(*needed))?;
                match closed_nodes {
                    0 => Ok(()),
                    1 => f.write_str("; one node is cordoned or in quarantine"),
                    many => write!(f, "; {many} nodes are cordoned or in quarantine"),
                }
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
pub fn why_waiting(state: &State, name: &RunName, work: WorkId, now: Millis) -> Option<Wait> {
    let now = now.max(state.clock);
    let run = state.runs.get(name)?;
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
    let needs = state.missing(name, work);
    if let Some(failed) = needs.iter().find_map(|need| failed_in(run, *need)) {
        return Some(Wait::BlockedBy { work: failed });
    }
    if !needs.is_empty() {
        return Some(Wait::For { needs });
    }
    if state.workers.values().all(|worker| worker.lost_at.is_some()) {
        return Some(Wait::NoWorkers);
    }
    let requires = run.requires(work);
    let capacity = state.index.capacity(&state.workers, requires);
    let Some(needed) = run.widest(work, capacity) else {
        let needed = run.least(work);
        return Some(Wait::TooWide { needed, capacity, requires: requires.clone() });
    };
    // Whoever seats are kept for goes first, as long as it waits.
    let asked = work;
    let ahead = state.kept.iter().find(|(kind, (run, work))| {
        let waits = state.work(run, *work).is_some_and(|it| it.phase == Phase::Waiting);
        requires.accepts_kind(kind) && waits && (run, work) != (name, &asked)
    });
    if let Some((_, (run, work))) = ahead {
        return Some(Wait::Behind { run: run.clone(), work: *work });
    }
    let free = state.index.pools.free_of(&|kind| requires.accepts_kind(kind));
    let closed = state.nodes.values().filter(|node| !node.is_open()).count();
    let closed_nodes = u32::try_from(closed).unwrap_or(u32::MAX);
    Some(Wait::Seats { needed, free, closed_nodes })
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
