//! What running ranks said last about how far they are. Never stored: it is told again.

use std::collections::BTreeMap;

use clade_core::ids::Fence;
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

/// The last words of all works, newest incarnation only.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    seen: BTreeMap<Fence, Seen>,
}

impl Observed {
    pub(crate) fn progress(&mut self, fence: Fence, progress: &v1::Progress) {
        let v1::Progress { done, total, rate, loss, pid, rank, fence: _, busy_ms: _ } =
            progress.clone();
        // One rank speaks for its gang: only rank 0 knows the loss.
        if rank != 0 {
            return;
        }
        let finite = |number: f64| if number.is_finite() { number } else { 0.0 };
        let seen = Seen { done, total, rate: finite(rate), loss: finite(loss), pid };
        if self.seen.insert(fence.clone(), seen).is_none() {
            self.seen.retain(|old, _| {
                old.run != fence.run
                    || old.work != fence.work
                    || old.incarnation == fence.incarnation
            });
        }
    }

    pub(crate) fn of(&self, fence: &Fence) -> Option<Seen> {
        self.seen.get(fence).copied()
    }
}
