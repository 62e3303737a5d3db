//! What running works said last about how far they are, and what inspections met. Never stored: it
//! is told again.

use std::collections::BTreeMap;

use clade_core::ids::{Fence, Incarnation, RunName, WorkId};
use clade_core::schedule::{Phase, State};
use clade_proto::v1;

/// The last word of one running work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// Units per second.
    pub(crate) rate: f64,
    pub(crate) loss: f64,
    pub(crate) pid: u32,
}

/// The last words about all works, of their newest incarnation only.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    seen: BTreeMap<(RunName, WorkId), (Incarnation, Seen)>,
    /// Why the store does not yet tell what an ended gang left.
    troubles: BTreeMap<(RunName, WorkId), (Incarnation, String)>,
    /// Workers talk to somebody else.
    is_mirror: bool,
}

impl Observed {
    /// Of a process that no worker talks to.
    pub(crate) fn nothing() -> Self {
        Self { is_mirror: true, ..Self::default() }
    }

    /// Whether whatever is missing here is known to the leader.
    pub(crate) const fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    pub(crate) fn progress(&mut self, fence: Fence, progress: &v1::Progress) {
        let v1::Progress { done, total, rate, loss, pid, rank, fence: _, busy_ms: _ } = progress;
        // One rank speaks for its gang: only rank 0 knows the loss.
        if *rank != 0 {
            return;
        }
        let finite = |number: f64| if number.is_finite() { number } else { 0.0 };
        let (rate, loss) = (finite(*rate), finite(*loss));
        let seen = Seen { done: *done, total: *total, rate, loss, pid: *pid };
        let Fence { run, work, incarnation } = fence;
        self.seen.insert((run, work), (incarnation, seen));
    }

    /// An inspection failed and goes on.
    pub(crate) fn trouble(&mut self, fence: Fence, why: String) {
        let Fence { run, work, incarnation } = fence;
        self.troubles.insert((run, work), (incarnation, why));
    }

    /// What was said under exactly this fence.
    pub(crate) fn of(&self, fence: &Fence) -> Option<Seen> {
        let (incarnation, seen) = self.seen.get(&(fence.run.clone(), fence.work))?;
        (*incarnation == fence.incarnation).then_some(*seen)
    }

    /// Why the inspection under this fence has not ended.
    pub(crate) fn trouble_of(&self, fence: &Fence) -> Option<&str> {
        let (incarnation, why) = self.troubles.get(&(fence.run.clone(), fence.work))?;
        (*incarnation == fence.incarnation).then_some(why)
    }

    /// Forgets what nobody can ask for any more.
    pub(crate) fn prune(&mut self, state: &State) {
        let of = |(run, work): &(RunName, WorkId), incarnation: Incarnation| {
            state.work(run, *work).filter(|work| work.incarnation == incarnation)
        };
        self.seen.retain(|key, (incarnation, _)| {
            of(key, *incarnation).is_some_and(|work| work.gang().is_some())
        });
        self.troubles.retain(|key, (incarnation, _)| {
            of(key, *incarnation).is_some_and(|work| matches!(work.phase, Phase::Inspecting { .. }))
        });
    }
}

#[cfg(test)]
mod tests {
    use clade_core::ids::Stage;

    use super::*;

    fn fence(part: u32, incarnation: u64) -> Fence {
        let (run, work) = ("a".parse().unwrap(), WorkId::job(Stage::Index, part));
        Fence { run, work, incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn only_the_newest_incarnation_counts_and_what_has_ended_is_forgotten() {
        let mut observed = Observed::default();
        let said = |done| v1::Progress { done, total: 9, ..v1::Progress::default() };
        observed.progress(fence(0, 1), &said(3));
        observed.progress(fence(0, 2), &said(4));
        observed.progress(fence(1, 1), &said(5));
        observed.progress(fence(1, 1), &v1::Progress { rank: 1, ..said(6) });
        assert_eq!(observed.of(&fence(0, 1)), None);
        assert_eq!(observed.of(&fence(0, 2)).map(|seen| seen.done), Some(4));
        assert_eq!(observed.of(&fence(1, 1)).map(|seen| seen.done), Some(5));
        observed.trouble(fence(0, 2), "no credentials".to_owned());
        assert_eq!(observed.trouble_of(&fence(0, 2)), Some("no credentials"));
        assert_eq!(observed.trouble_of(&fence(0, 3)), None);
        // A state that knows none of them.
        observed.prune(&State::default());
        assert_eq!(observed.of(&fence(0, 2)), None);
        assert!(observed.seen.is_empty() && observed.troubles.is_empty());
    }
}
