//! Which coordinator to call next, and when.
//!
//! Pure but for the dice it is given. A coordinator that does not lead may say who does; whoever is
//! named is called next, unless the naming goes round in circles.

use std::time::Duration;

use clade_core::order::Random;

const BACKOFF_FROM: Duration = Duration::from_millis(100);
const BACKOFF_TO: Duration = Duration::from_secs(2);
/// Hints followed in a row before the list is gone through again.
const HINTS_IN_A_ROW: u32 = 3;

/// How a stream ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) reason: String,
    /// The coordinator gave orders over it.
    pub(super) was_heard: bool,
    /// Who leads, if it said so: `http://address:port` or `address:port`.
    pub(super) leader: Option<String>,
}

/// The addresses of one cluster's coordinators.
#[derive(Debug)]
pub(super) struct Addresses {
    known: Vec<String>,
    at: usize,
    /// An address that is not among the known, called because a coordinator named it.
    hint: Option<String>,
    hints: u32,
    fruitless: usize,
    backoff: Duration,
    random: Random,
}

impl Addresses {
    /// None if the list is empty.
    pub(super) fn new(known: Vec<String>, random: Random) -> Option<Self> {
        let (at, hint, hints, fruitless, backoff) = (0, None, 0, 0, BACKOFF_FROM);
        let addresses = Self { known, at, hint, hints, fruitless, backoff, random };
        (!addresses.known.is_empty()).then_some(addresses)
    }

    /// Whom to call.
    pub(super) fn current(&self) -> &str {
        self.hint.as_deref().unwrap_or(&self.known[self.at])
    }

    pub(super) fn are_several(&self) -> bool {
        self.known.len() > 1
    }

    /// Chooses the next address after a stream ended, and says how long to wait before the call.
    pub(super) fn turn(&mut self, ended: &Ended) -> Duration {
        if ended.was_heard {
            (self.hints, self.fruitless, self.backoff) = (0, 0, BACKOFF_FROM);
        }
        let leader = ended.leader.as_deref().and_then(|leader| self.whole(leader));
        match leader.filter(|_| self.hints < HINTS_IN_A_ROW) {
            Some(leader) => {
                self.hints += 1;
                self.follow(leader);
                self.jittered(BACKOFF_FROM)
            }
            None => {
                self.hints = 0;
                self.hint = None;
                self.at = (self.at + 1) % self.known.len();
                self.wait()
            }
        }
    }

    fn follow(&mut self, leader: String) {
        match self.known.iter().position(|known| *known == leader) {
            Some(at) => (self.at, self.hint) = (at, None),
            None => self.hint = Some(leader),
        }
    }

    /// One round through the list takes as long as one wait for a lone coordinator.
    fn wait(&mut self) -> Duration {
        let share = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let pause = self.jittered(self.backoff / share);
        self.fruitless += 1;
        if self.fruitless.is_multiple_of(self.known.len()) {
            self.backoff = (self.backoff * 2).min(BACKOFF_TO);
        }
        pause
    }

    fn jittered(&mut self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.random.unit() / 2.0)
    }

    /// A leader's address with the scheme of the known ones; none if it has another: what was asked
    /// to be encrypted is not spoken in the clear because a stranger says so.
    fn whole(&self, leader: &str) -> Option<String> {
        let known = self.known.first()?;
        let (scheme, _) = known.split_once("://")?;
        let address = match leader.split_once("://") {
            Some((found, address)) if found == scheme => address,
            Some(_) => return None,
            None => leader,
        };
        let whole = format!("{scheme}://{}", address.trim_end_matches('/'));
        whole.parse::<tonic::transport::Uri>().is_ok().then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Addresses {
        let known = ["http://a:1", "http://b:1", "http://c:1"].map(str::to_owned).to_vec();
        Addresses::new(known, Random::new(7)).unwrap()
    }

    fn ended(leader: Option<&str>) -> Ended {
        Ended { leader: leader.map(str::to_owned), ..Ended::default() }
    }

    #[test]
    fn the_list_is_gone_round_ever_more_slowly_until_somebody_is_heard() {
        let mut addresses = three();
        let round = |addresses: &mut Addresses| {
            let mut called = Vec::new();
            let mut waited = Duration::ZERO;
            for _ in 0..3 {
                called.push(addresses.current().to_owned());
                waited += addresses.turn(&ended(None));
            }
            assert_eq!(called, ["http://a:1", "http://b:1", "http://c:1"]);
            waited
        };
        let waits: Vec<Duration> = (0..8).map(|_| round(&mut addresses)).collect();
        assert!(waits[0] <= BACKOFF_FROM && waits[0] >= BACKOFF_FROM / 2, "{waits:?}");
        assert!(waits[7] <= BACKOFF_TO && waits[7] >= BACKOFF_TO / 2, "{waits:?}");
        addresses.turn(&Ended { was_heard: true, ..Ended::default() });
        assert_eq!(addresses.backoff, BACKOFF_FROM);
    }

    #[test]
    fn a_leader_that_is_named_is_called_next_known_or_not() {
        let mut addresses = three();
        addresses.turn(&ended(Some("http://c:1/")));
        assert_eq!(addresses.current(), "http://c:1");
        addresses.turn(&ended(Some("d:1")));
        assert_eq!(addresses.current(), "http://d:1");
        // The list goes on from where it was.
        addresses.turn(&ended(None));
        assert_eq!(addresses.current(), "http://a:1");
    }

    #[test]
    fn coordinators_that_name_each_other_are_not_followed_for_ever() {
        let mut addresses = three();
        for _ in 0..HINTS_IN_A_ROW {
            let other = if addresses.current() == "http://a:1" { "b:1" } else { "a:1" };
            addresses.turn(&ended(Some(other)));
        }
        assert_eq!(addresses.current(), "http://b:1");
        addresses.turn(&ended(Some("a:1")));
        assert_eq!(addresses.current(), "http://c:1");
    }

    #[test]
    fn nobody_is_followed_out_of_encryption() {
        let known = vec!["https://a:1".to_owned()];
        let mut addresses = Addresses::new(known, Random::new(7)).unwrap();
        for hint in ["http://b:1", "not an address"] {
            addresses.turn(&ended(Some(hint)));
            assert_eq!(addresses.current(), "https://a:1");
        }
        assert!(Addresses::new(vec![], Random::new(7)).is_none());
    }
}
