//! How gangs end, and what follows.

use super::failures::is_a_seats;
use super::step::Stepper;
use super::{Action, Gang, Phase, Run, RunPhase, Stop, StopFor, Verdict, Work};
use crate::ids::{CheckpointRef, Fence, Millis, NodeName, RunName, Seat, WorkId};
use crate::job::{Failure, Outcome};
use crate::spec::Gang as GangSpec;

/// Ends of ranks that are kept with all their words.
const FULL_ACCOUNTS: usize = 16;

/// Bytes of what is kept of the others' words.
const BRIEF: usize = 96;

impl Stepper<'_> {
    /// Notes that a rank is gone; the others of its gang cannot go on without it.
    pub(super) fn gone(&mut self, fence: &Fence, rank: u32, outcome: Outcome) {
        let Ok(work) = self.current(fence) else { return };
        let Some(gang) = work.gang() else { return };
        if !gang.alive().any(|(it, _)| it == rank) {
            return;
        }
        let is_running = matches!(work.phase, Phase::Running(_));
        let is_done = matches!(outcome, Outcome::Done { .. });
        // A gang is kept in one row, which must hold however many ranks end with many words. What rank 0
        // counted is the gang's, and of a failure that all share a few accounts are enough.
        let is_brief = rank > 0 && gang.exited.len() >= FULL_ACCOUNTS;
        let outcome = if is_brief { outcome.in_short(BRIEF) } else { outcome };
        self.change(&fence.run, fence.work, |work| {
            if let Some(gang) = work.gang_mut() {
                gang.exited.insert(rank, outcome);
            }
        });
        if is_running && !is_done {
            self.stop_gang(&fence.run, fence.work, Stop::RankGone);
        }
        self.end_gang(fence);
    }

    /// Orders every living rank of a running gang to stop.
    pub(super) fn stop_gang(&mut self, run: &RunName, id: WorkId, cause: Stop) {
        let Some(fence) = self.state.runs.get(run).and_then(|run| run.fence(id)) else { return };
        // Before it is watched no longer.
        let seen = self.state.seen.get(&(run.clone(), id));
        let reached = seen.map_or(0, super::progress::Seen::reached);
        let why = cause.name();
        let stopped = self.change(run, id, |work| {
            let Phase::Running(gang) = &mut work.phase else { return None };
            let gang = std::mem::take(gang);
            let living: Vec<(u32, Seat)> =
                gang.alive().map(|(rank, seat)| (rank, seat.clone())).collect();
            work.phase = Phase::Stopping { gang, cause };
            Some(living)
        });
        let Some(living) = stopped.flatten() else { return };
        let (save, tell) = (self.saves_on_stop(run, id), self.hangs(run, id));
        self.asked(run, id, why, save, reached);
        for (rank, seat) in living {
            self.act(Action::StopRank { seat, fence: fence.clone(), rank, save, tell });
        }
        self.end_gang(&fence);
    }

    /// Whether the ranks of a stopping gang can still commit: only if none of them is gone by
    /// accident, since they share every gradient, and only if they still take steps.
    pub(super) fn saves_on_stop(&self, run: &RunName, id: WorkId) -> bool {
        let Some(work) = self.state.work(run, id) else { return false };
        let is_torn = work
            .gang()
            .is_none_or(|gang| gang.exited.values().any(|it| matches!(it, Outcome::Failed(_))));
        !self.hangs(run, id) && !is_torn
    }

    /// Whether a gang is being stopped because it took no step.
    pub(super) fn hangs(&self, run: &RunName, id: WorkId) -> bool {
        let phase = self.state.work(run, id).map(|work| &work.phase);
        matches!(phase, Some(Phase::Stopping { cause: Stop::Hung { .. }, .. }))
    }

    /// Once all ranks are gone: looks at what they left, or concludes at once.
    fn end_gang(&mut self, fence: &Fence) {
        let Ok(work) = self.current(fence) else { return };
        let Some(gang) = work.gang() else { return };
        if gang.exited.len() < gang.seats.len() {
            return;
        }
        let hung = match &work.phase {
            Phase::Stopping { cause: Stop::Hung { seconds }, .. } => Some(*seconds),
            Phase::Stopping { .. }
            | Phase::Running(_)
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Inspecting { .. }
            | Phase::Done
            | Phase::Failed { .. } => None,
        };
        let verdict = verdict(gang, hung);
        let is_a_seats = is_a_seats(fence.work, work, &verdict);
        let culprit = culprit(gang).cloned();
        let home = gang.seats.iter().filter_map(|seat| self.state.node_of(&seat.worker));
        let home = home.cloned().collect();
        let avoid = match &verdict {
            Verdict::Failed { .. } => culprit.and_then(|seat| self.node_of_seat(&seat)),
            Verdict::Done { .. } | Verdict::Stopped => None,
        };
        // A lost worker was blamed when it was lost.
        if let (Some(node), Verdict::Failed { failure }) = (&avoid, &verdict)
            && !matches!(failure, Failure::WorkerLost { .. })
        {
            self.blame(node, fence, failure);
        }
        if is_a_seats {
            self.state.failures.failed();
        }
        let is_model = fence.work.model().is_some();
        let concluded = verdict.clone();
        self.change(&fence.run, fence.work, |work| {
            work.avoid = avoid;
            if is_model {
                work.home = home;
                work.phase = Phase::Inspecting { verdict };
            }
        });
        if is_model {
            self.act(Action::Inspect { fence: fence.clone() });
        } else {
            self.conclude(fence, concluded);
        }
    }

    fn node_of_seat(&self, seat: &Seat) -> Option<NodeName> {
        self.state.node_of(&seat.worker).cloned()
    }

    /// Records the newest candidate of an ended gang and closes its incarnation, in one transaction.
    pub(super) fn inspected(&mut self, fence: &Fence, newest: Option<CheckpointRef>) {
        let Ok(work) = self.current(fence) else { return };
        let Phase::Inspecting { verdict } = &work.phase else { return };
        let verdict = verdict.clone();
        // An incarnation's own checkpoints only grow; an equal or older one is already recorded.
        let own = work.committed.iter().rfind(|it| it.incarnation == fence.incarnation);
        let model = fence.work.model();
        let due = self.state.runs.get(&fence.run).zip(model).map(|(run, model)| run.due(model));
        let is_news = |it: &CheckpointRef| {
            it.incarnation == fence.incarnation
                && Some(it.model) == model
                && due.is_some_and(|due| it.step <= due)
                && own.is_none_or(|own| own.step < it.step)
        };
        if let Some(newest) = newest.filter(is_news) {
            self.record(fence, newest);
        }
        self.has_left(fence);
        self.conclude(fence, verdict);
    }

    /// Decides what becomes of a work whose gang is gone.
    fn conclude(&mut self, fence: &Fence, verdict: Verdict) {
        let Some(run) = self.state.runs.get(&fence.run) else { return };
        let is_stopping = run.head.phase != RunPhase::Active;
        let due = fence.work.model().map(|model| run.due(model));
        let gang = gang_spec(run, fence.work).clone();
        let Some(work) = run.works.get(&fence.work) else { return };
        let is_complete = due.is_some_and(|due| work.committed_step() >= due);
        let failure = match verdict {
            _ if is_complete => None,
            Verdict::Done { counts } if due.is_none() => {
                self.praise(&fence.run, fence.work);
                self.change(&fence.run, fence.work, |work| work.counts = counts);
                None
            }
            Verdict::Done { .. } => Some(Failure::Crashed {
                rank: 0,
                message: "ended before its last checkpoint".to_owned(),
            }),
            Verdict::Stopped => {
                self.change(&fence.run, fence.work, |work| {
                    work.incarnation = work.incarnation.next();
                    work.phase = Phase::Waiting;
                });
                return;
            }
            Verdict::Failed { failure } => Some(failure),
        };
        let Some(failure) = failure else {
            self.change(&fence.run, fence.work, |work| work.phase = Phase::Done);
            return;
        };
        let now = self.now;
        let is_final = self.change(&fence.run, fence.work, |work| {
            work.incarnation = work.incarnation.next();
            work.restarts += 1;
            work.fruitless += 1;
            work.strikes += u32::from(failure.burns_budget());
            let given_up = given_up(work, &gang, &failure);
            work.last_failure = Some(failure.clone());
            let is_final = given_up.is_some();
            work.phase = match given_up {
                Some(failure) => Phase::Failed { failure },
                None if is_stopping || work.strikes == 0 => Phase::Waiting,
                None => Phase::Backoff { until: Millis(now.0 + backoff(&gang, work.strikes)) },
            };
            is_final
        });
        // Nothing can come of a run that lacks one of its jobs; a lost model leaves the others
        // worth finishing.
        if is_final == Some(true) && due.is_none() {
            let then = StopFor::Failure { work: fence.work, failure };
            self.stop_run(&fence.run, then);
        }
    }
}

/// The failure that ends a work for good, if this one does.
fn given_up(work: &Work, gang: &GangSpec, failure: &Failure) -> Option<Failure> {
    if !failure.may_retry() || work.strikes > gang.restarts {
        return Some(failure.clone());
    }
    (work.fruitless > gang.fruitless)
        .then(|| Failure::NoProgress { gangs: work.fruitless, last: Box::new(failure.clone()) })
}

/// How gangs of `work` are kept; jobs are kept as experts are.
pub(super) fn gang_spec(run: &Run, work: WorkId) -> &GangSpec {
    work.model().map_or(&run.head.spec.spec.gangs.expert, |model| run.head.spec.gang(model))
}

/// The verdict on a gang from how its ranks ended: the most telling failure wins.
fn verdict(gang: &Gang, hung: Option<u64>) -> Verdict {
    // The first of equals: rank 0 speaks for its gang.
    let failures = gang.exited.iter().filter_map(|(rank, outcome)| Some((rank, failure(outcome)?)));
    let worst = failures.reduce(|a, b| if b.1.weight() > a.1.weight() { b } else { a });
    let is_done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
    // Of ranks that are killed one by one the last ones only see the others go.
    let worst = worst.filter(|(_, worst)| hung.is_none() || worst.weight() > 0);
    if let Some((_, worst)) = worst {
        return Verdict::Failed { failure: worst.clone() };
    }
    if let Some(seconds) = hung
        && !gang.exited.values().all(is_done)
    {
        return Verdict::Failed { failure: Failure::Stalled { rank: 0, seconds } };
    }
    match gang.exited.get(&0) {
        Some(Outcome::Done { counts }) => Verdict::Done { counts: counts.clone() },
        Some(Outcome::Stopped | Outcome::Failed(_)) | None => Verdict::Stopped,
    }
}

/// Where the rank sat whose failure tells most, if any says more than that a peer was lost.
fn culprit(gang: &Gang) -> Option<&Seat> {
    let failures = gang.exited.iter().filter_map(|(rank, outcome)| Some((rank, failure(outcome)?)));
    let telling = failures.filter(|(_, failure)| failure.weight() > 0);
    let (rank, _) = telling.reduce(|a, b| if b.1.weight() > a.1.weight() { b } else { a })?;
    gang.seats.get(usize::try_from(*rank).ok()?)
}

const fn failure(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Failed(failure) => Some(failure),
        Outcome::Done { .. } | Outcome::Stopped => None,
    }
}

/// Doubles from `from` with each strike, up to `to`.
fn backoff(gang: &GangSpec, strikes: u32) -> u64 {
    let factor = 1_u64.checked_shl(strikes.saturating_sub(1)).unwrap_or(u64::MAX);
    gang.backoff.from.millis().saturating_mul(factor).min(gang.backoff.to.millis())
}
