//! Scheduling as a pure state machine: runs, works, gangs, workers, nodes.
//!
//! [`step`] is the only way state changes. It does no I/O, reads no clock and draws no random
//! number, so a log of events replays to the same state. Every event is legal in every state:
//! `step` cannot fail. A report that is not taken is answered with [`Action::Refuse`] and changes
//! nothing, or is ignored because it is already known; it is never taken for news.
//!
//! A *work* is whatever is seated as one: a job (one seat) or a model's gang. Jobs commit by
//! creating their manifest in the store, models through [`Event::CheckpointReported`] and
//! [`Event::Inspected`].
//!
//! No event changes more than [`MAX_CHANGED`] stored objects. What is larger (cancelling ten thousand
//! jobs) is done in parts, each of which leaves a valid state; [`Effects::more`] says that there is more.

mod admission;
mod event;
mod failures;
mod farewell;
mod gang;
mod index;
pub mod invariants;
mod placement;
mod pool;
mod progress;
mod reason;
mod reports;
mod runs;
mod state;
mod step;
mod trust;
mod undo;
mod way;
mod widths;
mod workers;

pub use admission::{Unplaceable, admit};
pub use event::{Action, Event, LiveRank, Refusal, Start};
pub use farewell::{ASKED, Farewell, Kept};
pub use reason::{Wait, why_waiting};
pub use state::{
    Gang, JOBS_PER_CHUNK, Node, Object, Offer, Phase, Run, RunHead, RunPhase, State, Stop, StopFor,
    Trust, Verdict, Work, Worker,
};
pub use step::{Before, Effects, MAX_CHANGED, step};
pub use undo::undo;

use crate::ids::Millis;
use crate::spec::Requires;

/// Time limits that are the installation's, not a run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a worker may be without a stream before it is lost.
    pub reattach: Millis,
    /// The same after a change of leadership, when every worker must find its way back.
    pub takeover: Millis,
    /// How long a gang may take to its first step: libraries, data and checkpoint are loaded.
    pub first_step: Millis,
    /// How long it may be without a further step, if three times its p99 is not longer.
    pub hang: Millis,
    /// Length of a node's first quarantine.
    pub quarantine: Millis,
    /// A leader that heard nothing at all for so long stood still itself.
    pub pause: Millis,
    /// A gang makes way for one of its priority only if it has at least so much less left to do.
    pub way: Millis,
    /// A gang that may have fewer ranks than its most takes fewer if it had to wait longer for more; twice what
    /// its start is taken to last if nobody saw it.
    pub narrow: Millis,
    /// Changed objects beyond which one event begins nothing more: it may share a transaction.
    pub objects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reattach: Millis(3_000),
            takeover: Millis(8_000),
            first_step: Millis(600_000),
            hang: Millis(60_000),
            quarantine: Millis(600_000),
            pause: Millis(2_000),
            way: Millis(600_000),
            narrow: Millis(120_000),
            objects: 80,
        }
    }
}

#[cfg(test)]
mod tests;
