//! Events that are saved together, and what is to be done once they are.
//!
//! An event's writes are never torn apart: what does not fit beside those before it begins a
//! transaction of its own, and transactions are saved in order.

use std::collections::BTreeMap;

use clade_core::ids::WorkerId;
use clade_core::schedule::Action;
use tracing::error;

use crate::question::Reply;
use crate::state::{MOST_BYTES, MOST_KEYS, Write};

/// Keys after which no further event joins: room for what one more adds.
const ENOUGH: usize = 80;

/// What follows from an event once it is saved.
pub(super) enum After {
    Act(Box<Action>),
    Welcome(WorkerId),
    Acknowledge { worker: WorkerId, sequence: u64 },
    Reply(Reply),
}

/// Transactions to be, and what follows them.
#[derive(Default)]
pub(super) struct Batch {
    transactions: Vec<BTreeMap<String, Write>>,
    pub(super) after: Vec<After>,
    /// Some event left work over.
    more: bool,
}

impl Batch {
    /// Whether what it holds should be saved before anything joins.
    pub(super) fn is_enough(&self) -> bool {
        self.transactions.len() > 1
            || self.transactions.last().is_some_and(|last| last.len() >= ENOUGH)
    }

    /// Whether there is more to do than fitted, as any of its events said: a later one that was
    /// refused looked at nothing, and knows of nothing.
    pub(super) const fn has_more(&self) -> bool {
        self.more
    }

    /// Adds what one event changed, and whether it left work over.
    pub(super) fn join(&mut self, mut writes: Vec<Write>, more: bool) {
        self.more |= more;
        let bytes: usize = writes.iter().map(Write::bytes).sum();
        if writes.len() > MOST_KEYS || bytes > MOST_BYTES {
            let keys = writes.len();
            error!(keys, bytes, "one event changed more than one transaction may write");
            // A run's row sorts before its works' and is written last: without it they count for nothing.
            writes.reverse();
            self.transactions.push(BTreeMap::new());
            for write in writes {
                let one = by_key(vec![write]);
                match self.transactions.last_mut() {
                    Some(last) if fits(last, &one) => last.extend(one),
                    Some(_) | None => self.transactions.push(one),
                }
            }
            return;
        }
        if writes.is_empty() {
            return;
        }
        let writes = by_key(writes);
        match self.transactions.last_mut() {
            Some(last) if fits(last, &writes) => last.extend(writes),
            Some(_) | None => self.transactions.push(writes),
        }
    }

    /// The transactions in their order, and what follows them.
    pub(super) fn split(self) -> (impl Iterator<Item = Vec<Write>>, Vec<After>) {
        let transactions = self.transactions.into_iter();
        (transactions.map(|writes| writes.into_values().collect()), self.after)
    }
}

fn by_key(writes: Vec<Write>) -> BTreeMap<String, Write> {
    writes.into_iter().map(|write| (write.key().to_owned(), write)).collect()
}

fn fits(last: &BTreeMap<String, Write>, more: &BTreeMap<String, Write>) -> bool {
    let kept = last.iter().filter(|(key, _)| !more.contains_key(*key)).map(|(_, write)| write);
    let all = kept.chain(more.values());
    let (keys, bytes) = all.fold((0, 0), |(keys, bytes), write| (keys + 1, bytes + write.bytes()));
    keys <= MOST_KEYS && bytes <= MOST_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn puts(keys: std::ops::Range<usize>, value: &str) -> Vec<Write> {
        keys.map(|key| Write::Put { key: format!("{key:04}"), value: value.as_bytes().to_vec() })
            .collect()
    }

    fn saved(events: &[Vec<Write>]) -> Vec<Vec<Write>> {
        let mut batch = Batch::default();
        events.iter().for_each(|event| batch.join(event.clone(), false));
        batch.split().0.collect()
    }

    #[test]
    fn events_share_a_transaction_and_the_last_word_on_a_row_stands() {
        let shared = saved(&[puts(0..3, "a"), vec![], puts(2..5, "b")]);
        assert_eq!(shared, [[puts(0..2, "a"), puts(2..5, "b")].concat()]);
    }

    #[test]
    fn an_event_that_does_not_fit_beside_others_is_whole_in_a_transaction_of_its_own() {
        let events = [puts(0..79, "a"), puts(70..110, "b"), puts(0..1, "c")];
        let parts = saved(&events);
        assert_eq!(parts, [events[0].clone(), [events[2].clone(), events[1].clone()].concat()]);
        let large = "x".repeat(MOST_BYTES / 2);
        assert_eq!(saved(&[puts(0..1, &large), puts(1..2, &large)]).len(), 2);
    }

    #[test]
    fn an_event_too_large_for_any_transaction_writes_its_first_row_last() {
        let parts = saved(&[puts(0..250, "a")]);
        assert!(parts.iter().all(|part| part.len() <= MOST_KEYS));
        assert!(parts.last().unwrap().contains(&puts(0..1, "a")[0]));
        assert_eq!(parts.concat().len(), 250);
        let large = saved(&[puts(0..5, &"x".repeat(MOST_BYTES / 2 - 4))]);
        assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(large.last().unwrap()[0].key(), "0000");
    }

    #[test]
    fn work_that_is_left_over_is_not_forgotten_for_a_later_event_that_leaves_none() {
        let mut batch = Batch::default();
        batch.join(puts(0..1, "a"), true);
        batch.join(vec![], false);
        assert!(batch.has_more());
    }
}
