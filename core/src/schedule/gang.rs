//! How gangs end, and what follows.

use super::step::Stepper;
use super::{Action, Gang, Object, Phase, RunPhase, Stop, StopFor, Verdict, Work};
use crate::ids::{CheckpointRef, Fence, Millis, RunName, Seat, WorkId};
use crate::job::{Failure, Outcome};
use crate::spec::Gang as GangSpec;

impl Stepper<'_> {
    /// Notes that a rank is gone; the others of its gang cannot go on without it.
    pub(super) fn exited(&mut self, fence: &Fence, rank: u32, outcome: Outcome) {
        let Some(work) = self.current(fence) else { return };
        let Some(gang) = work.gang() else { return };
        let is_known = gang.exited.contains_key(&rank) || !gang.alive().any(|(it, _)| it == rank);
        if is_known {
            return;
        }
        let is_running = matches!(work.phase, Phase::Running(_));
        let is_done = matches!(outcome, Outcome::Done { .. });
        if let Some(Phase::Running(gang) | Phase::Stopping { gang, .. }) =
            self.work_mut(&fence.run, fence.work).map(|work| &mut work.phase)
        {
            gang.exited.insert(rank, outcome);
        }
        if is_running && !is_done {
            self.stop_gang(&fence.run, fence.work, Stop::RankGone);
        }
        self.end_gang(fence);
    }

    /// Orders every living rank of a gang to stop.
    pub(super) fn stop_gang(&mut self, run: &RunName, id: WorkId, cause: Stop) {
        let Some(fence) = self.state.runs.get(run).and_then(|run| run.fence(id)) else { return };
        let Some(work) = self.work_mut(run, id) else { return };
        let Phase::Running(gang) = &mut work.phase else { return };
        let gang = Gang {
            seats: std::mem::take(&mut gang.seats),
            exited: std::mem::take(&mut gang.exited),
            rendezvous: gang.rendezvous.take(),
        };
        let living: Vec<(u32, Seat)> =
            gang.alive().map(|(rank, seat)| (rank, seat.clone())).collect();
        work.phase = Phase::Stopping { gang, cause };
        let save = self.saves_on_stop(run, id);
        for (rank, seat) in living {
            self.act(Action::StopRank { seat, fence: fence.clone(), rank, save });
        }
        self.end_gang(&fence);
    }

    /// Whether the ranks of a stopping gang can still commit: only if none of them is gone by
    /// accident, since they share every gradient.
    pub(super) fn saves_on_stop(&self, run: &RunName, id: WorkId) -> bool {
        self.state
            .work(run, id)
            .and_then(Work::gang)
            .is_some_and(|gang| !gang.exited.values().any(|it| matches!(it, Outcome::Failed(_))))
    }

    /// Once all ranks are gone: looks at what they left, or concludes at once.
    fn end_gang(&mut self, fence: &Fence) {
        let Some(work) = self.current(fence) else { return };
        let Some(gang) = work.gang() else { return };
        if gang.exited.len() < gang.seats.len() {
            return;
        }
        let verdict = verdict(gang);
        match fence.work {
            WorkId::Job(_) => self.conclude(fence, verdict),
            WorkId::Model(_) => {
                if let Some(work) = self.work_mut(&fence.run, fence.work) {
                    work.phase = Phase::Inspecting { verdict };
                }
                self.act(Action::Inspect { fence: fence.clone() });
            }
        }
    }

    /// Records the newest candidate of an ended gang and closes its incarnation, in one transaction.
    pub(super) fn inspected(&mut self, fence: &Fence, newest: Option<CheckpointRef>) {
        let Some(work) = self.current(fence) else { return };
        let Phase::Inspecting { verdict } = &work.phase else { return };
        let verdict = verdict.clone();
        // An incarnation's own checkpoints only grow; an equal or older one is already recorded.
        let own = work.committed.iter().rfind(|it| it.incarnation == fence.incarnation);
        let is_news = |it: &CheckpointRef| own.is_none_or(|own| own.step < it.step);
        if let Some(newest) = newest.filter(is_news) {
            self.record(fence, newest);
        }
        self.conclude(fence, verdict);
    }

    /// Decides what becomes of a work whose gang is gone.
    fn conclude(&mut self, fence: &Fence, verdict: Verdict) {
        let Some(run) = self.state.runs.get(&fence.run) else { return };
        let is_stopping = run.head.phase != RunPhase::Active;
        let due = fence.work.model().map(|model| run.due(model));
        let gang = fence
            .work
            .model()
            .map_or(run.head.spec.spec.gangs.expert, |model| *run.head.spec.gang(model));
        let now = self.now;
        let Some(work) = self.work_mut(&fence.run, fence.work) else { return };
        let is_complete = due.is_some_and(|due| work.committed_step() >= due);
        let failure = match verdict {
            _ if is_complete => None,
            Verdict::Done { counts } if due.is_none() => {
                work.counts = counts;
                None
            }
            Verdict::Done { .. } => Some(Failure::Crashed {
                rank: 0,
                message: "ended before its last checkpoint".to_owned(),
            }),
            Verdict::Stopped => {
                work.incarnation = work.incarnation.next();
                work.phase = Phase::Waiting;
                return;
            }
            Verdict::Failed { failure } => Some(failure),
        };
        let Some(failure) = failure else {
            work.phase = Phase::Done;
            return;
        };
        work.incarnation = work.incarnation.next();
        work.restarts += 1;
        work.strikes += u32::from(failure.burns_budget());
        work.last_failure = Some(failure.clone());
        let is_final = !failure.may_retry() || work.strikes > gang.restarts;
        work.phase = if is_final {
            Phase::Failed { failure: failure.clone() }
        } else if is_stopping || work.strikes == 0 {
            Phase::Waiting
        } else {
            Phase::Backoff { until: Millis(now.0 + backoff(&gang, work.strikes)) }
        };
        // Nothing can come of a run that lacks one of its jobs; a lost model leaves the others
        // worth finishing.
        if is_final && due.is_none() {
            let then = StopFor::Failure { work: fence.work, failure };
            self.stop_run(&fence.run, then);
        }
    }

    /// Ends the runs in which nothing is under way and nothing can start any more.
    pub(super) fn end_runs(&mut self) {
        let (mut ended, mut resumed) = (Vec::new(), Vec::new());
        for (name, run) in &self.state.runs {
            let is_idle = !run.works.values().any(Work::is_under_way);
            match &run.head.phase {
                RunPhase::Active => {
                    if run.works.values().all(|work| work.phase == Phase::Done) {
                        ended.push((name.clone(), RunPhase::Finished));
                    } else if let Some((&work, failure)) = first_failure(run)
                        && is_idle
                        && !can_go_on(run)
                    {
                        let failure = failure.clone();
                        ended.push((name.clone(), RunPhase::Failed { work, failure }));
                    }
                }
                RunPhase::Stopping { then } if is_idle => match then.clone() {
                    StopFor::Cancel => ended.push((name.clone(), RunPhase::Cancelled)),
                    StopFor::Failure { work, failure } => {
                        ended.push((name.clone(), RunPhase::Failed { work, failure }));
                    }
                    StopFor::Resume => resumed.push(name.clone()),
                },
                RunPhase::Stopping { .. }
                | RunPhase::Finished
                | RunPhase::Failed { .. }
                | RunPhase::Cancelled => (),
            }
        }
        for name in resumed {
            self.revive(&name);
        }
        let now = self.now;
        for (name, phase) in ended {
            self.effects.changed.insert(Object::Run(name.clone()));
            if let Some(head) = self.head_mut(&name) {
                head.phase = phase;
                head.ended = Some(now);
            }
        }
    }
}

/// The verdict on a gang from how its ranks ended: the most telling failure wins.
fn verdict(gang: &Gang) -> Verdict {
    let failures = gang.exited.values().filter_map(|outcome| match outcome {
        Outcome::Failed(failure) => Some(failure),
        Outcome::Done { .. } | Outcome::Stopped => None,
    });
    // The first of equals: rank 0 speaks for its gang.
    if let Some(worst) = failures.reduce(|a, b| if b.weight() > a.weight() { b } else { a }) {
        return Verdict::Failed { failure: worst.clone() };
    }
    match gang.exited.get(&0) {
        Some(Outcome::Done { counts }) => Verdict::Done { counts: counts.clone() },
        Some(Outcome::Stopped | Outcome::Failed(_)) | None => Verdict::Stopped,
    }
}

/// Doubles from `from` with each strike, up to `to`.
fn backoff(gang: &GangSpec, strikes: u32) -> u64 {
    let factor = 1_u64.checked_shl(strikes.saturating_sub(1)).unwrap_or(u64::MAX);
    gang.backoff.from.millis().saturating_mul(factor).min(gang.backoff.to.millis())
}

fn first_failure(run: &super::Run) -> Option<(&WorkId, &Failure)> {
    run.works.iter().find_map(|(id, work)| match &work.phase {
        Phase::Failed { failure } => Some((id, failure)),
        Phase::Waiting
        | Phase::Backoff { .. }
        | Phase::Running(_)
        | Phase::Stopping { .. }
        | Phase::Inspecting { .. }
        | Phase::Done => None,
    })
}

/// Whether any work could still start, now or after a rest.
fn can_go_on(run: &super::Run) -> bool {
    let (plan, done) = (run.plan(), run.done_stages());
    run.works.iter().any(|(&id, work)| match work.phase {
        Phase::Waiting | Phase::Backoff { .. } => run.missing(id, &plan, &done).is_empty(),
        Phase::Running(_)
        | Phase::Stopping { .. }
        | Phase::Inspecting { .. }
        | Phase::Done
        | Phase::Failed { .. } => false,
    })
}
