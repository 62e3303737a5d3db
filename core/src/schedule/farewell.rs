//! Gangs that were asked to save and leave, and whether they have saved: counted, since it shows nowhere else.
//!
//! A gang has saved if it leaves a checkpoint of its own and has told of no step beyond. It may have been asked
//! by somebody else: of an agent that is told to go the coordinator hears that its seats are withdrawn, and of a
//! single rank that it has stopped.
//!
//! Never stored: a new leader does not count whom its forerunner has asked, and knows of steps told only what it was
//! told itself.

use super::State;
use super::step::Stepper;
use crate::ids::{Fence, RunName, WorkId};

/// Why gangs are asked: names of all such [`super::Stop`]s.
pub const ASKED: [&str; 6] =
    ["rank_gone", "run_stopping", "preempted", "drained", "device_withdrawn", "widened"];

/// How a gang ended that was asked to save and leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    pub fence: Fence,
    /// One of [`ASKED`].
    pub why: &'static str,
    pub kept: Kept,
}

/// What is left of what a gang did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Every step that it had told of.
    All,
    /// Not the last ones: it was killed, or failed, before it had saved them.
    Less,
    /// It had told of no step.
    Nothing,
}

/// A gang that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    why: &'static str,
    /// The newest step that it has told of.
    reached: u64,
}

impl Kept {
    pub const EVERY: [Self; 3] = [Self::All, Self::Less, Self::Nothing];

    /// A name for metrics: one of a closed set.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "saved",
            Self::Less => "not_saved",
            Self::Nothing => "nothing_to_save",
        }
    }
}

impl State {
    /// What was kept of a gang whose end is known, and that had told of so many steps.
    fn kept_of(&self, fence: &Fence, reached: u64) -> Option<Kept> {
        let (run, model) = (self.runs.get(&fence.run)?, fence.work.model()?);
        let work = run.works.get(&fence.work)?;
        // Where a model begins is no step of its own.
        let left = |reached| run.steps_left(model, reached);
        let newest = work.committed.last();
        Some(if left(work.committed_step().0) > left(reached) {
            Kept::Less
        } else if newest.is_some_and(|it| it.incarnation == fence.incarnation) {
            Kept::All
        } else {
            Kept::Nothing
        })
    }
}

impl Stepper<'_> {
    /// A gang that had told of so many steps is being stopped, and may save or not.
    pub(super) fn asked(
        &mut self,
        run: &RunName,
        id: WorkId,
        why: &'static str,
        may_save: bool,
        reached: u64,
    ) {
        let is_asked = may_save && id.model().is_some();
        self.note((run.clone(), id), is_asked.then_some(Leaving { why, reached }));
    }

    /// Notes who is leaving, so that it can be taken back.
    fn note(&mut self, key: (RunName, WorkId), leaving: Option<Leaving>) {
        let before = match leaving {
            Some(leaving) => self.state.leaving.insert(key.clone(), leaving),
            None => self.state.leaving.remove(&key),
        };
        self.effects.before.leaving.entry(key).or_insert(before);
    }

    /// A gang that is leaving tells of a step.
    pub(super) fn goes_on_leaving(&mut self, run: &RunName, id: WorkId, done: u64) {
        let key = (run.clone(), id);
        if let Some(&Leaving { why, reached }) = self.state.leaving.get(&key) {
            self.note(key, Some(Leaving { why, reached: reached.max(done) }));
        }
    }

    /// All that a gang has left is known: says so if it was asked to leave.
    pub(super) fn has_left(&mut self, fence: &Fence) {
        let key = (fence.run.clone(), fence.work);
        let Some(&Leaving { why, reached }) = self.state.leaving.get(&key) else { return };
        self.note(key, None);
        let kept = self.state.kept_of(fence, reached);
        let fence = fence.clone();
        self.effects.farewells.extend(kept.map(|kept| Farewell { fence, why, kept }));
    }
}
