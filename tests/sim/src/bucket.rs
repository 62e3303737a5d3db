//! The object store, as far as checkpoints go: candidates, who wrote them, and what they follow.

use std::collections::BTreeMap;

use clade_core::ids::{CheckpointRef, Digest, Incarnation, ModelId, RunName, Step};

/// A checkpoint whose manifest exists, or did.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) checkpoint: CheckpointRef,
    /// What its gang went on from: nothing before the seed's first.
    pub(crate) parent: Option<CheckpointRef>,
    /// Its bytes were damaged: readers see it by the digests.
    pub(crate) is_damaged: bool,
    pub(crate) is_deleted: bool,
}

/// Everything ever written.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    candidates: BTreeMap<(RunName, ModelId, Incarnation, Step), Candidate>,
    written: u64,
    /// Until when requests fail.
    pub(crate) fails_until: u64,
}

impl Bucket {
    /// Creates a candidate; what is there already stays (create-if-absent).
    pub(crate) fn create(
        &mut self,
        run: &RunName,
        model: ModelId,
        incarnation: Incarnation,
        step: Step,
        parent: Option<CheckpointRef>,
    ) -> CheckpointRef {
        self.written += 1;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.written.to_le_bytes());
        let checkpoint = CheckpointRef { model, incarnation, step, manifest: Digest(bytes) };
        let key = (run.clone(), model, incarnation, step);
        let fresh = Candidate { checkpoint, parent, is_damaged: false, is_deleted: false };
        self.candidates.entry(key).or_insert(fresh).checkpoint.clone()
    }

    pub(crate) fn find(&self, run: &RunName, at: &CheckpointRef) -> Option<&Candidate> {
        let found = self.candidates.get(&(run.clone(), at.model, at.incarnation, at.step))?;
        (found.checkpoint == *at).then_some(found)
    }

    pub(crate) fn find_mut(&mut self, run: &RunName, at: &CheckpointRef) -> Option<&mut Candidate> {
        let found = self.candidates.get_mut(&(run.clone(), at.model, at.incarnation, at.step))?;
        (found.checkpoint == *at).then_some(found)
    }

    /// The newest sound candidate of one incarnation, as an inspection lists them.
    pub(crate) fn newest(
        &self,
        run: &RunName,
        model: ModelId,
        incarnation: Incarnation,
    ) -> Option<CheckpointRef> {
        let from = (run.clone(), model, incarnation, Step(0));
        let to = (run.clone(), model, incarnation, Step(u64::MAX));
        let mut all = self.candidates.range(from..=to).map(|(_, it)| it);
        let newest = all.rfind(|it| !it.is_damaged && !it.is_deleted)?;
        Some(newest.checkpoint.clone())
    }

    /// The parents of a checkpoint, newest first, itself included.
    pub(crate) fn chain<'a>(
        &'a self,
        run: &'a RunName,
        from: &CheckpointRef,
    ) -> impl Iterator<Item = &'a Candidate> {
        let first = self.find(run, from);
        std::iter::successors(first, move |it| self.find(run, it.parent.as_ref()?))
    }
}
