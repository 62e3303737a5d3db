//! How fast models go: what is learned from their steps, and who hangs or lags behind.
//!
//! Never stored: ranks tell it again within a second.

use std::collections::BTreeMap;

use super::step::Stepper;
use super::{Limits, Node, Phase, Refusal, Stop};
use crate::ids::{Fence, Millis, NodeName, RunName, WorkId, WorkerId};

/// What was seen of a running model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// The newest step told.
    done: Option<u64>,
    /// When that was first told.
    at: Millis,
    /// When it was ordered, if that was seen.
    seated_at: Option<Millis>,
    /// Milliseconds from its order to its first step.
    start: Option<u64>,
    /// When it is judged hung.
    pub(super) deadline: Millis,
    gaps: Gaps,
    /// Microseconds per step, smoothed.
    pace: Option<u64>,
    lag: BTreeMap<u32, Lag>,
}

/// A rank's own time per step, without waiting for its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Lag {
    busy_us: u64,
    /// Reports in a row in which it was remarkably slower, or not.
    slow: u32,
    fine: u32,
}

/// How long a model went between two steps that were told, as counts of powers of √2 milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gaps {
    counts: BTreeMap<u32, u32>,
    total: u32,
}

impl Gaps {
    /// Old gaps fade: beyond so many, all counts are halved.
    const MEMORY: u32 = 4_096;

    fn add(&mut self, gap: Millis) {
        *self.counts.entry(bucket(gap.0)).or_default() += 1;
        self.total += 1;
        if self.total >= Self::MEMORY {
            self.counts.values_mut().for_each(|count| *count /= 2);
            self.counts.retain(|_, count| *count > 0);
            self.total = self.counts.values().sum();
        }
    }

    /// An upper bound of the gap that 99 of 100 stay below; 0 before anything is known.
    fn p99(&self) -> u64 {
        let rare = self.total / 100;
        let mut above = 0;
        for (&bucket, count) in self.counts.iter().rev() {
            above += count;
            if above > rare {
                return upper_bound(bucket);
            }
        }
        0
    }
}

/// Two buckets per doubling.
fn bucket(millis: u64) -> u32 {
    let whole = millis.max(1).ilog2();
    let is_upper_half = millis * 2 >= 3 << whole;
    2 * whole + u32::from(is_upper_half)
}

const fn upper_bound(bucket: u32) -> u64 {
    if bucket.is_multiple_of(2) { (3 << (bucket / 2)) / 2 } else { 2 << (bucket / 2) }
}

impl Seen {
    pub(super) fn started(now: Millis, limits: &Limits) -> Self {
        Self {
            at: now,
            seated_at: Some(now),
            deadline: Millis(now.0 + limits.first_step.0),
            ..Self::default()
        }
    }

    /// It was ordered before anybody watched it.
    pub(super) const fn missed_its_start(&mut self) {
        self.seated_at = None;
    }

    /// Its time begins anew: nothing could be heard, or something else than a step was.
    pub(super) fn excuse(&mut self, now: Millis, limits: &Limits) {
        self.at = now;
        let wait = if self.done.is_none() {
            limits.first_step.0
        } else {
            limits.hang.0.max(3 * self.gaps.p99())
        };
        self.deadline = Millis(now.0 + wait);
    }

    /// Microseconds per step, once two reports have shown it.
    pub(super) const fn pace(&self) -> Option<u64> {
        self.pace
    }

    /// Milliseconds that it took from its order to its first step; none if nobody saw that.
    pub(super) const fn start(&self) -> Option<u64> {
        self.start
    }

    /// The newest step told, 0 before the first.
    pub(super) fn reached(&self) -> u64 {
        self.done.unwrap_or(0)
    }

    fn stepped(&mut self, now: Millis, done: u64, limits: &Limits) {
        if let Some(before) = self.done {
            let gap = Millis(now.0.saturating_sub(self.at.0));
            let steps = done.saturating_sub(before);
            self.gaps.add(gap);
            if let Some(per_step) = (gap.0 * 1_000).checked_div(steps) {
                let smoothed = |old: u64| (3 * old + per_step) / 4;
                self.pace = Some(self.pace.map_or(per_step, smoothed).max(1));
            }
        }
        if self.done.is_none() {
            self.start = self.seated_at.map(|at| now.0.saturating_sub(at.0));
        }
        self.done = Some(done);
        self.excuse(now, limits);
    }

    /// Notes a rank's own time; says whether it lags, if that is certain by now.
    fn lags(&mut self, rank: u32, busy_us: u64) -> Option<Option<u32>> {
        self.lag.entry(rank).or_default().busy_us = busy_us;
        if self.lag.len() < 2 {
            return None;
        }
        let mut others: Vec<u64> =
            self.lag.iter().filter(|(it, _)| **it != rank).map(|(_, lag)| lag.busy_us).collect();
        others.sort_unstable();
        let median = others[others.len() / 2].max(1);
        let lag = self.lag.get_mut(&rank)?;
        let percent = busy_us.saturating_sub(median).saturating_mul(100) / median;
        if percent >= Lag::REMARKABLE && busy_us > median + 1_000 {
            (lag.slow, lag.fine) = (lag.slow + 1, 0);
        } else {
            (lag.slow, lag.fine) = (0, lag.fine + 1);
        }
        let percent = u32::try_from(percent).unwrap_or(u32::MAX);
        if lag.slow == Lag::CERTAIN {
            Some(Some(percent))
        } else if lag.fine == Lag::CERTAIN {
            Some(None)
        } else {
            None
        }
    }
}

impl Lag {
    /// Percent slower than the median of its peers.
    const REMARKABLE: u64 = 30;
    /// Reports in a row.
    const CERTAIN: u32 = 10;
}

impl Stepper<'_> {
    /// A rank says how far it is.
    pub(super) fn progressed(
        &mut self,
        worker: &WorkerId,
        fence: &Fence,
        rank: u32,
        done: u64,
        busy_us: u64,
    ) -> Result<(), Refusal> {
        self.check_speaker(worker, fence, rank)?;
        let Some(model) = fence.work.model() else { return Ok(()) };
        let due = self.state.runs.get(&fence.run).map(|run| run.due(model));
        if let Some(due) = due.filter(|due| due.0 < done) {
            return Err(Refusal::BeyondDue { due });
        }
        let key = (fence.run.clone(), fence.work);
        let (now, limits) = (self.now, self.limits);
        let Some(seen) = self.state.seen.get_mut(&key) else {
            self.goes_on_leaving(&fence.run, fence.work, done);
            return Ok(());
        };
        let verdict = if busy_us > 0 { seen.lags(rank, busy_us) } else { None };
        if rank == 0 && seen.done.is_none_or(|before| before < done) {
            let old = seen.deadline;
            seen.stepped(now, done, &limits);
            let (new, pace) = (seen.deadline, seen.pace);
            self.reschedule(&key, old, new);
            self.learn(fence, pace);
        }
        if let Some(slower) = verdict
            && let Some(node) = self.state.node_of(worker).cloned()
        {
            self.mark(&node, slower);
        }
        Ok(())
    }

    fn reschedule(&mut self, key: &(RunName, WorkId), old: Millis, new: Millis) {
        let hangs = &mut self.state.index.hangs;
        hangs.remove(&(old, key.0.clone(), key.1));
        hangs.insert((new, key.0.clone(), key.1));
    }

    /// Keeps the run's pace, as of a gang with all its ranks, if it is news.
    fn learn(&mut self, fence: &Fence, pace: Option<u64>) {
        let Some(run) = self.state.runs.get(&fence.run) else { return };
        let Some(pace) = pace.map(|pace| run.shrunk(fence.work, pace)) else { return };
        let Some(facts) = self.state.index.run(&fence.run) else { return };
        let is_known = facts.pace.is_some_and(|known| known.abs_diff(pace) * 4 <= known);
        if !is_known {
            self.state.index.paced(run, pace);
        }
    }

    fn mark(&mut self, node: &NodeName, slower: Option<u32>) {
        let known = self.state.nodes.get(node).and_then(|node| node.slower_percent);
        if known.is_some() != slower.is_some() {
            self.change_node(node, |node: &mut Node| node.slower_percent = slower);
        }
    }

    /// Begins to watch a gang that was seated.
    pub(super) fn watch(&mut self, run: &RunName, id: WorkId) {
        if id.model().is_none() {
            return;
        }
        let key = (run.clone(), id);
        let seen = Seen::started(self.now, &self.limits);
        let deadline = seen.deadline;
        if let Some(old) = self.state.seen.insert(key.clone(), seen) {
            self.state.index.hangs.remove(&(old.deadline, run.clone(), id));
        }
        self.state.index.hangs.insert((deadline, key.0, key.1));
    }

    /// A leader that finds a gang seated does not know since when it starts.
    pub(super) fn missed_its_start(&mut self, run: &RunName, id: WorkId) {
        if let Some(seen) = self.state.seen.get_mut(&(run.clone(), id)) {
            seen.missed_its_start();
        }
    }

    pub(super) fn unwatch(&mut self, run: &RunName, id: WorkId) {
        if let Some(old) = self.state.seen.remove(&(run.clone(), id)) {
            self.state.index.hangs.remove(&(old.deadline, run.clone(), id));
        }
    }

    /// Gives a gang its time anew.
    pub(super) fn excuse(&mut self, run: &RunName, id: WorkId) {
        let key = (run.clone(), id);
        let (now, limits) = (self.now, self.limits);
        let Some(seen) = self.state.seen.get_mut(&key) else { return };
        let old = seen.deadline;
        seen.excuse(now, &limits);
        let new = seen.deadline;
        self.reschedule(&key, old, new);
    }

    /// Stops gangs that took no step for too long; those whose reports cannot come are excused.
    pub(super) fn judge_hangs(&mut self) {
        while self.has_room() {
            let Some((at, run, id)) = self.state.index.hangs.first().cloned() else { return };
            if at > self.now {
                return;
            }
            let Some(work) = self.state.work(&run, id) else { return };
            let Phase::Running(gang) = &work.phase else { return };
            let is_away = |worker: &WorkerId| {
                self.state.workers.get(worker).is_none_or(|it| it.lost_at.is_some())
            };
            if gang.alive().any(|(_, seat)| is_away(&seat.worker)) {
                self.excuse(&run, id);
                continue;
            }
            let since = self.state.seen.get(&(run.clone(), id)).map_or(self.now, |seen| seen.at);
            let seconds = self.now.0.saturating_sub(since.0) / 1_000;
            self.stop_gang(&run, id, Stop::Hung { seconds });
        }
        self.effects.more = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_no_gap_above_its_bound_and_none_below_two_thirds_of_it() {
        for millis in (1..5_000).chain([60_000, 86_400_000]) {
            let bound = upper_bound(bucket(millis));
            assert!(millis <= bound && bound <= 2 * millis, "{millis} in {bound}");
        }
    }

    #[test]
    fn old_gaps_fade_by_halves_and_what_has_faded_is_forgotten() {
        let mut gaps = Gaps::default();
        gaps.add(Millis(20_000));
        for _ in 1..Gaps::MEMORY {
            gaps.add(Millis(1_000));
        }
        assert_eq!((gaps.total, gaps.counts.len()), (Gaps::MEMORY / 2 - 1, 1));
        for _ in 0..Gaps::MEMORY {
            gaps.add(Millis(3_000));
        }
        assert!((3_000..4_500).contains(&gaps.p99()), "{}", gaps.p99());
    }

    #[test]
    fn one_gap_in_thirty_counts_for_the_p99_and_one_in_a_thousand_does_not() {
        let mut gaps = Gaps::default();
        for at in 0..1_000 {
            gaps.add(Millis(if at % 30 == 0 { 20_000 } else { 1_000 }));
        }
        assert!(gaps.p99() >= 20_000);
        let mut gaps = Gaps::default();
        for at in 0..1_000 {
            gaps.add(Millis(if at == 7 { 20_000 } else { 1_000 }));
        }
        assert!(gaps.p99() < 2_000);
        let mut gaps = Gaps::default();
        for at in 0..100 {
            gaps.add(Millis(if at == 7 { 20_000 } else { 1_000 }));
        }
        assert!(gaps.p99() < 2_000, "one in a hundred");
    }

    #[test]
    fn a_millisecond_more_is_not_remarkable_however_short_the_steps_are() {
        for (busy_us, lags) in [(3_000, None), (3_001, Some(50))] {
            let mut seen = Seen::default();
            assert_eq!(seen.lags(0, 2_000), None);
            let told: Vec<_> = (0..10).filter_map(|_| seen.lags(1, busy_us)).collect();
            assert_eq!(told, [lags]);
        }
    }
}
