//! Losses Stay Where They Are: what a worker or a rank says stops only gangs that are seated at that
//! worker, or that very gang; others keep their seats and incarnations (G6).
//!
//! Preemption is the exception that is meant: it stops gangs for more urgent ones, and says for whom.
//! So are orders of operators and withdrawn devices, which are carried out in parts if they are large.

use super::Change;
use crate::ids::{Seat, WorkerId};
use crate::schedule::{Gang, Phase, Stop};

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let about = change.about;
    // Time and operators may end anything; each rank's end names its worker.
    if about.worker.is_none() && about.fence.is_none() {
        return Vec::new();
    }
    let is_hit = |run: &_, id, gang: &Gang| {
        let is_own = about.fence.as_ref().is_some_and(|it| it.run == *run && it.work == id);
        let is_there = |it: &WorkerId| about.worker.as_ref() == Some(it) || change.loses(it);
        is_own || gang.seats.iter().any(|seat| is_there(&seat.worker))
    };
    let works = change.works().filter(|(_, _, then, now)| {
        matches!(then.phase, Phase::Running(_)) && !matches!(now.phase, Phase::Running(_))
    });
    let mut seen = Vec::new();
    for (run, id, then, now) in works {
        let is_withdrawn = |seat: &Seat| {
            let worker = change.after.workers.get(&seat.worker);
            worker.is_some_and(|it| it.withdrawn.contains_key(&seat.slot))
        };
        let is_told = match &now.phase {
            Phase::Stopping { cause, .. } => match cause {
                Stop::Preempted { .. } | Stop::RunStopping | Stop::Drained { .. } => true,
                Stop::DeviceWithdrawn { seat } => is_withdrawn(seat),
                Stop::Widened { to } => {
                    let seats = then.gang().map_or(0, |gang| gang.seats.len());
                    u32::try_from(seats).is_ok_and(|seats| seats < *to)
                }
                Stop::RankGone | Stop::Hung { .. } => false,
            },
            Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Running(_)
            | Phase::Inspecting { .. }
            | Phase::Done
            | Phase::Failed { .. } => false,
        };
        let is_hit = then.gang().is_some_and(|gang| is_hit(run, id, gang));
        if !is_hit && !is_told {
            seen.push(format!("{run}/{id} was stopped by {}", about.name));
        }
    }
    seen
}
