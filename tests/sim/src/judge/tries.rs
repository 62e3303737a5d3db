//! Budgets, backoff and what follows a gang that failed.

use clade_core::ids::WorkId;
use clade_core::schedule::{Phase, Run, RunPhase, Work};
use clade_core::spec::Gang as GangSpec;

use crate::coordinator::Leader;
use crate::setting::EPOCH;
use crate::world::World;

impl World {
    /// Budgets and backoff: a try that failed counts as it should, and the next one waits.
    pub(super) fn judge_try(
        &self,
        leader: &Leader,
        run: &Run,
        id: WorkId,
        then: &Work,
        now: &Work,
        was_active: bool,
    ) -> Option<String> {
        let (name, gang) = (run.name(), gang_of(run, id));
        let key = (name.clone(), id);
        let time = EPOCH.saturating_add(self.now).saturating_add_signed(leader.offset);
        if let (Phase::Backoff { .. }, Some((since, leaps, rest))) =
            (&then.phase, leader.told.rests.get(&key))
        {
            let rested = (leader.told.ticks - since + 1) * 100;
            let is_early = *leaps == leader.told.leaps && rested + 200 < *rest;
            if is_early && !matches!(now.phase, Phase::Backoff { .. }) {
                return Some(format!("{name}/{id} rested {rested} ms instead of {rest}"));
            }
        }
        // A run that was taken up again has begun to count anew.
        if !was_active {
            return None;
        }
        // Where something new was recorded the count begins anew.
        let recorded = now.committed.last() != then.committed.last();
        let before = if recorded { (0, 0) } else { (then.strikes, then.fruitless) };
        let counted = (now.strikes, now.fruitless);
        if now.restarts == then.restarts {
            let what = format!("{name}/{id} counts {counted:?} failures, not {before:?}");
            return (counted != before).then_some(what);
        }
        let failure = now.last_failure.as_ref()?;
        let expected = (before.0 + u32::from(failure.burns_budget()), before.1 + 1);
        if counted != expected || now.restarts != then.restarts + 1 {
            let what = format!("{name}/{id} counts {counted:?} failures, not {expected:?}");
            return Some(what);
        }
        let is_over = !failure.may_retry() || now.strikes > gang.restarts;
        let is_fruitless = now.fruitless > gang.fruitless;
        match &now.phase {
            Phase::Failed { .. } if !is_over && !is_fruitless => {
                Some(format!("{name}/{id} was given up after {failure}"))
            }
            Phase::Failed { .. } => None,
            _ if is_over || is_fruitless => Some(format!("{name}/{id} goes on after {failure}")),
            Phase::Backoff { until } => {
                let least = time.min(until.0) + rest(gang, now.strikes);
                let is_short = until.0 < least && time + rest(gang, now.strikes) > until.0;
                is_short.then(|| format!("{name}/{id} rests until {until}, not {least}"))
            }
            Phase::Waiting | Phase::Running(_) if run.head.phase == RunPhase::Active => {
                (now.strikes > 0).then(|| format!("{name}/{id} goes on without a rest"))
            }
            Phase::Waiting
            | Phase::Running(_)
            | Phase::Stopping { .. }
            | Phase::Inspecting { .. }
            | Phase::Done => None,
        }
    }
}

pub(super) fn gang_of(run: &Run, id: WorkId) -> &GangSpec {
    id.model().map_or(&run.head.spec.spec.gangs.expert, |model| run.head.spec.gang(model))
}

/// How long a work rests after so many strikes.
pub(super) fn rest(gang: &GangSpec, strikes: u32) -> u64 {
    let doubled = (1..strikes).fold(gang.backoff.from.millis(), |rest, _| rest.saturating_mul(2));
    doubled.min(gang.backoff.to.millis())
}
