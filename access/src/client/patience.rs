//! How long to go on asking while nobody does what is asked.

use std::time::Duration;

use super::Fault;

/// Pauses between tries while nobody answers.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
/// Coordinators that are there but have no leader elect one within this time.
const ELECTION: Duration = Duration::from_secs(15);

/// How patient a call is when nobody does what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Asks every address once: the caller has a loop of its own.
    Once,
    /// Asks a few times within a second, and as long as an election takes while standbys answer.
    Few,
    /// Asks until somebody answers: the caller knows that somebody will, or stops waiting.
    Endless,
}

impl Patience {
    /// How long to wait before the round after `rounds`, if there is to be one.
    pub(super) fn pause(self, rounds: usize, waited: Duration, fault: Fault) -> Option<Duration> {
        if !fault.may_pass() {
            return None;
        }
        let next = PAUSES.get(rounds).copied();
        let steady = || PAUSES.last().copied();
        match self {
            Self::Once => None,
            Self::Few if fault == Fault::NotLeading && waited < ELECTION => next.or_else(steady),
            Self::Few => next,
            Self::Endless => next.or_else(steady),
        }
    }
}
