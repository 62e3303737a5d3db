//! Which of several coordinators to ask next: a pure choice from what was heard.

use super::address::Address;

/// What to do after a coordinator did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It named the leader: ask that one at once.
    Leader,
    /// Nobody knows better: ask the next one, after a pause when all were asked.
    Next,
}

/// The addresses that were given, never none, and the one that is thought to lead.
#[derive(Clone, Debug)]
pub(super) struct Candidates {
    given: Vec<Address>,
    aim: usize,
    /// A leader that was named by another and is not among those given.
    hinted: Option<Address>,
    /// Hints followed in a row: two that name one another must not be asked without a pause.
    hops: usize,
}

impl Candidates {
    pub(super) fn new(given: Vec<Address>) -> Option<Self> {
        (!given.is_empty()).then_some(Self { given, aim: 0, hinted: None, hops: 0 })
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.given.iter().map(|it| it.url().to_owned()).collect()
    }

    pub(super) fn aim(&self) -> &Address {
        self.hinted.as_ref().unwrap_or(&self.given[self.aim])
    }

    /// Aims at one that is not among those asked already; whether there is any.
    pub(super) fn go_on(&mut self, asked: &[String]) -> bool {
        let is_new = |address: &Address| !asked.iter().any(|it| it == address.url());
        if is_new(self.aim()) {
            return true;
        }
        let count = self.given.len();
        let mut next = (0..count).map(|ahead| (self.aim + ahead) % count);
        let Some(index) = next.find(|&it| is_new(&self.given[it])) else {
            // A named leader that is gone would be in the way of who names its successor.
            self.hinted = None;
            return false;
        };
        (self.aim, self.hinted) = (index, None);
        true
    }

    pub(super) fn answered(&mut self, url: &str) {
        self.hops = 0;
        if let Some(index) = self.given.iter().position(|it| it.url() == url) {
            self.aim = index;
            self.hinted = None;
        }
    }

    /// Turns to whom the one at `url` named, else away from it.
    pub(super) fn failed(&mut self, url: &str, hint: Option<Address>) -> Turn {
        if let Some(hint) = hint.filter(|hint| hint.url() != url) {
            match self.given.iter().position(|it| *it == hint) {
                Some(index) => (self.aim, self.hinted) = (index, None),
                None => self.hinted = Some(hint),
            }
            self.hops += 1;
            if self.hops <= self.given.len() {
                return Turn::Leader;
            }
            self.hops = 0;
            return Turn::Next;
        }
        self.hops = 0;
        // Unless somebody who shares this has turned away already.
        if self.aim().url() == url && self.hinted.take().is_none() {
            self.aim = (self.aim + 1) % self.given.len();
        }
        Turn::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::parse(url).unwrap()
    }

    fn three() -> Candidates {
        Candidates::new(["http://a:1", "http://b:1", "http://c:1"].map(address).into()).unwrap()
    }

    #[test]
    fn without_hints_every_address_has_its_turn() {
        let mut candidates = three();
        let mut asked = Vec::new();
        for _ in 0..4 {
            let url = candidates.aim().url().to_owned();
            assert_eq!(candidates.failed(&url, None), Turn::Next);
            asked.push(url);
        }
        assert_eq!(asked, ["http://a:1", "http://b:1", "http://c:1", "http://a:1"]);
    }

    #[test]
    fn a_hint_leads_at_once_also_to_an_address_that_was_not_given() {
        let mut candidates = three();
        assert_eq!(candidates.failed("http://a:1", Some(address("http://c:1"))), Turn::Leader);
        assert_eq!(candidates.aim().url(), "http://c:1");
        assert_eq!(candidates.failed("http://c:1", Some(address("http://d:1"))), Turn::Leader);
        assert_eq!(candidates.aim().url(), "http://d:1");
        // It is dead: back to those that were given.
        assert_eq!(candidates.failed("http://d:1", None), Turn::Next);
        assert_eq!(candidates.aim().url(), "http://c:1");
    }

    #[test]
    fn a_round_leaves_nobody_out_and_ends() {
        let mut candidates = three();
        let mut asked = Vec::new();
        // Everybody names c, which is dead.
        loop {
            let url = candidates.aim().url().to_owned();
            let hint = (url != "http://c:1").then(|| address("http://c:1"));
            candidates.failed(&url, hint);
            asked.push(url);
            if !candidates.go_on(&asked) {
                break;
            }
        }
        assert_eq!(asked, ["http://a:1", "http://c:1", "http://b:1"]);
    }

    #[test]
    fn one_that_names_itself_but_does_not_lead_is_left() {
        let mut candidates = three();
        assert_eq!(candidates.failed("http://a:1", Some(address("http://a:1"))), Turn::Next);
        assert_eq!(candidates.aim().url(), "http://b:1");
    }

    #[test]
    fn two_that_name_one_another_are_not_asked_without_a_pause() {
        let mut candidates = three();
        let (a, b) = ("http://a:1", "http://b:1");
        let turns = (0..8).map(|turn| {
            let (from, to) = if turn % 2 == 0 { (a, b) } else { (b, a) };
            candidates.failed(from, Some(address(to)))
        });
        assert_eq!(turns.filter(|turn| *turn == Turn::Next).count(), 2);
    }

    #[test]
    fn two_that_lose_the_same_one_turn_away_from_it_once() {
        let mut candidates = three();
        candidates.failed("http://a:1", None);
        candidates.failed("http://a:1", None);
        assert_eq!(candidates.aim().url(), "http://b:1");
        candidates.answered("http://c:1");
        assert_eq!(candidates.aim().url(), "http://c:1");
    }
}
