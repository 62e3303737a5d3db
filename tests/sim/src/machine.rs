//! One machine: its devices, the slot locks that outlive an agent, and the fences file.

use std::collections::BTreeMap;

use clade_core::ids::{Fence, Incarnation, NodeName, RunName, Term, WorkId};
use clade_core::schedule::Offer;

/// A machine, over all the agents it has.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) offer: Offer,
    /// The file that survives agents: `worker/src/agent/fences.rs`.
    pub(crate) term: Term,
    pub(crate) incarnations: BTreeMap<(RunName, WorkId), Incarnation>,
    /// Which rank's process holds a slot.
    pub(crate) locks: BTreeMap<u32, (Fence, u32)>,
    /// Until when nothing it says arrives, and nothing said to it.
    pub(crate) mute_until: u64,
    pub(crate) deaf_until: u64,
    /// Until when messages take so much longer.
    pub(crate) slow_network: (u64, u64),
    /// Its ranks take so many times as long.
    pub(crate) slowness: u64,
    /// Until when ranks started here fail.
    pub(crate) bad_until: u64,
    /// The agent that lives here now.
    pub(crate) agent: Option<usize>,
}

impl Machine {
    pub(crate) fn node(&self) -> &NodeName {
        &self.offer.node
    }

    /// Takes note of a term, or says that it is below what was seen.
    pub(crate) fn admit_term(&mut self, term: Term) -> bool {
        let is_fresh = term >= self.term;
        self.term = self.term.max(term);
        is_fresh
    }

    /// Takes note of an incarnation, or says that it is below what was seen.
    pub(crate) fn admit(&mut self, fence: &Fence) -> bool {
        let seen = self.incarnations.entry((fence.run.clone(), fence.work)).or_default();
        let is_fresh = fence.incarnation >= *seen;
        *seen = fence.incarnation.max(*seen);
        is_fresh
    }
}
