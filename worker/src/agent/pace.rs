//! How long to wait before the next coordinator is called.
//!
//! Pure but for the dice it is given. Whom to call is the cluster's business.

use std::time::Duration;

use clade_access::client::Turn;
use clade_core::order::Random;

const FROM: Duration = Duration::from_millis(100);
const TO: Duration = Duration::from_secs(2);
/// Leaders that were named in a row and did not take the stream, before that is as bad as silence.
const HINTS_IN_A_ROW: usize = 3;

/// The pauses between streams.
#[derive(Debug)]
pub(super) struct Pace {
    coordinators: usize,
    hints: usize,
    fruitless: usize,
    backoff: Duration,
    random: Random,
}

impl Pace {
    pub(super) const fn new(coordinators: usize, random: Random) -> Self {
        Self { coordinators, hints: 0, fruitless: 0, backoff: FROM, random }
    }

    /// A coordinator gave orders: from now on there is no hurry to be slow.
    pub(super) const fn heard(&mut self) {
        (self.hints, self.fruitless, self.backoff) = (0, 0, FROM);
    }

    /// The pause after a stream that ended, or never began.
    pub(super) fn pause(&mut self, turn: Turn) -> Duration {
        match turn {
            Turn::Leader if self.hints < HINTS_IN_A_ROW => {
                self.hints += 1;
                self.jittered(FROM / 4)
            }
            Turn::Leader | Turn::Next => self.wait(),
        }
    }

    /// One round through all coordinators takes as long as one wait for a lone one.
    fn wait(&mut self) -> Duration {
        let coordinators = self.coordinators.max(1);
        let pause = self.jittered(self.backoff / u32::try_from(coordinators).unwrap_or(u32::MAX));
        self.fruitless += 1;
        if self.fruitless.is_multiple_of(coordinators) {
            self.backoff = (self.backoff * 2).min(TO);
        }
        pause
    }

    fn jittered(&mut self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.random.unit() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_ever_slower_until_somebody_is_heard() {
        let mut pace = Pace::new(3, Random::new(7));
        let round = |pace: &mut Pace| (0..3).map(|_| pace.pause(Turn::Next)).sum::<Duration>();
        let rounds: Vec<Duration> = (0..8).map(|_| round(&mut pace)).collect();
        let within = |found: Duration, most: Duration| found >= most / 2 && found <= most;
        assert!(within(rounds[0], FROM) && within(rounds[1], FROM * 2), "{rounds:?}");
        assert!(within(rounds[7], TO), "{rounds:?}");
        pace.heard();
        assert!(within(round(&mut pace), FROM));
    }

    #[test]
    fn who_is_named_is_called_at_once_but_not_for_ever() {
        let mut pace = Pace::new(1, Random::new(7));
        for _ in 0..HINTS_IN_A_ROW {
            assert!(pace.pause(Turn::Leader) <= FROM / 4);
        }
        let slower: Vec<Duration> = (0..6).map(|_| pace.pause(Turn::Leader)).collect();
        assert!(slower[0] >= FROM / 2 && slower[5] >= TO / 2, "{slower:?}");
    }
}
