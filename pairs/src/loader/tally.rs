//! Counts masked pairs over a stream, and says when there are too many.

use std::collections::BTreeSet;

use clade_core::job::Failure;

/// Slots before a share of them means anything.
const ENOUGH: u64 = 1_000;
/// Masked pairs that are named.
const NAMED: usize = 8;

/// What was masked so far in this rank's share of one stream.
#[derive(Debug, Default)]
pub(super) struct Tally {
    slots: u64,
    masked: u64,
    known: BTreeSet<String>,
    first: Vec<String>,
}

impl Tally {
    /// Notes a masked pair; true if it is met for the first time.
    pub(super) fn mask(&mut self, key: &str, place: impl FnOnce() -> String) -> bool {
        self.masked += 1;
        let is_new = self.known.insert(key.to_owned());
        if is_new && self.first.len() < NAMED {
            self.first.push(place());
        }
        is_new
    }

    /// Notes `slots` more, and judges them all.
    pub(super) fn judge(&mut self, slots: u64, allowed: f64) -> Result<(), Failure> {
        self.slots += slots;
        let (seen, masked) = (self.slots, self.masked);
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = masked as f64 / seen.max(1) as f64;
        if seen < ENOUGH || share <= allowed {
            return Ok(());
        }
        let message = format!(
            "{masked} of the last {seen} pairs could not be read ({:.1}%, more than \
             spec.dataset.maxBadShare allows: {:.1}%), the first of them: {}; put those tars back as \
             they were indexed, or start a new run",
            100.0 * share,
            100.0 * allowed,
            self.first.join(", ")
        );
        Err(Failure::Data { message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_masked_pairs_are_borne_and_too_many_end_the_stream_with_the_list() {
        let mut tally = Tally::default();
        for number in 0..60 {
            assert!(tally.mask(&format!("k{number}"), || format!("k{number} at 512")));
        }
        assert!(!tally.mask("k0", || "k0 at 512".to_owned()), "told of once");
        tally.judge(999, 0.05).unwrap();
        let error = tally.judge(1, 0.05).unwrap_err();
        assert!(!error.may_retry());
        let message = error.to_string();
        assert!(message.contains("61 of the last 1000 pairs"), "{message}");
        assert!(message.contains("k0 at 512, k1 at 512") && message.contains("k7"), "{message}");
        assert!(!message.contains("k8"), "{message}");
        Tally { slots: 0, masked: 50, ..Tally::default() }.judge(1_000, 0.05).unwrap();
    }
}
