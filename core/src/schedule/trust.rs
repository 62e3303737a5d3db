//! Which nodes are trusted with work: blame, quarantine, retest.
//!
//! A failure may be the node's fault or the model's. A node is quarantined when failures of different
//! works gather there without anything going well in between, so that one broken model does not take
//! the fleet down; and never more than a quarter of all nodes. Its time over, it gets one work at a
//! time until something goes well there.

use std::collections::BTreeSet;

use super::step::Stepper;
use super::{Node, Trust};
use crate::ids::{Fence, Millis, NodeName, RunName, WorkId};
use crate::job::Failure;

/// Failures without anything going well, and the different works among them, that end a trust.
const BLAME: u32 = 3;
const WORKS: usize = 2;

/// A node that failed its retest is away twice as long each time, up to this factor.
const LONGEST: u32 = 64;

impl Stepper<'_> {
    /// Notes that a rank failed on `node` by what may be the node's fault.
    pub(super) fn blame(&mut self, node: &NodeName, fence: &Fence, failure: &Failure) {
        if !failure.may_be_the_nodes_fault() {
            return;
        }
        let may_quarantine = (self.state.index.quarantined() + 1) * 4 <= self.state.index.nodes();
        let (now, first) = (self.now, self.limits.quarantine.0);
        let work = format!("{}/{}", fence.run, fence.work);
        // What still ran there when its quarantine began tells nothing new.
        let is_away = |node: &Node| matches!(node.trust, Trust::Quarantined { .. });
        if self.state.nodes.get(node).is_some_and(is_away) {
            return;
        }
        self.change_node(node, |node: &mut Node| {
            *node.blame.entry(work).or_default() += 1;
            let total: u32 = node.blame.values().sum();
            let failed_retest = node.trust == Trust::Retest;
            let is_bad = total >= BLAME && node.blame.len() >= WORKS;
            if (failed_retest || is_bad) && may_quarantine {
                let factor = 1_u32.checked_shl(node.quarantines).unwrap_or(LONGEST).min(LONGEST);
                node.trust =
                    Trust::Quarantined { until: Millis(now.0 + first * u64::from(factor)) };
                node.quarantines = node.quarantines.saturating_add(1);
                node.blame.clear();
            }
        });
    }

    /// Something went well where `work` sits.
    pub(super) fn praise(&mut self, run: &RunName, work: WorkId) {
        let Some(gang) = self.state.work(run, work).and_then(super::Work::gang) else { return };
        let nodes = gang.seats.iter().filter_map(|seat| self.state.node_of(&seat.worker));
        let nodes: BTreeSet<NodeName> =
            nodes.filter(|node| self.state.nodes.contains_key(*node)).cloned().collect();
        for node in nodes {
            self.change_node(&node, |node| {
                node.blame.clear();
                if node.trust == Trust::Retest {
                    (node.trust, node.quarantines) = (Trust::Full, 0);
                }
            });
        }
    }

    /// No quarantine that begins now ends later.
    pub(super) fn longest_quarantine(&self) -> Millis {
        Millis(self.now.0 + self.limits.quarantine.0 * u64::from(LONGEST))
    }

    pub(super) fn end_quarantines(&mut self) {
        while let Some((until, node)) = self.state.index.quarantines.first().cloned() {
            if until > self.now {
                return;
            }
            if !self.has_room() {
                self.effects.more = true;
                return;
            }
            self.change_node(&node, |node| node.trust = Trust::Retest);
        }
    }
}
