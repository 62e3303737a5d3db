//! How wide a gang may be: any width keeps the global batch that has whole micro-batches for every rank.

use super::{Gang, RunSpec};
use crate::ids::ModelId;

impl Gang {
    /// Ranks below which it waits.
    pub fn least(&self) -> u32 {
        self.min_ranks.map_or(self.ranks, |least| least.min(self.ranks))
    }
}

impl RunSpec {
    /// K: the micro-batches that the ranks of a gang share evenly.
    pub const fn micro_batches(&self) -> u32 {
        let training = &self.spec.training;
        match training.global_batch.checked_div(training.micro_batch) {
            Some(parts) => parts,
            None => 0,
        }
    }

    /// Whether a gang of `model` may have so many ranks.
    pub fn may_have(&self, model: ModelId, ranks: u32) -> bool {
        let gang = self.gang(model);
        ranks == gang.ranks
            || (gang.least()..gang.ranks).contains(&ranks)
                && ranks > 0
                && self.micro_batches().is_multiple_of(ranks)
    }

    /// The most ranks that a gang of `model` may have on so many seats.
    pub fn widest(&self, model: ModelId, seats: u32) -> Option<u32> {
        let gang = self.gang(model);
        let most = seats.min(gang.ranks);
        (gang.least()..=most).rev().find(|ranks| self.may_have(model, *ranks))
    }
}

/// Every width that `micro_batches` can be shared by, up to `most`, as text.
pub fn all_widths(micro_batches: u32, most: u32) -> String {
    let widths = (1..=most.min(micro_batches)).filter(|it| micro_batches.is_multiple_of(*it));
    widths.map(|it| it.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = include_str!("../../../deploy/demo/run.yaml");

    /// Twelve micro-batches.
    fn twelve(expert: &str) -> Result<RunSpec, String> {
        let document = DEMO
            .replace("globalBatch: 128", "globalBatch: 96")
            .replace("microBatch: 64", "microBatch: 8")
            .replace("expert: {ranks: 1", &format!("expert: {{{expert}"));
        RunSpec::parse(&document).map_err(|error| error.to_string())
    }

    #[test]
    fn an_elastic_gang_is_as_wide_as_its_seats_let_it_and_keeps_the_batch() {
        let spec = twelve("ranks: 6, minRanks: 2").unwrap();
        let widest = |seats| spec.widest(ModelId::Expert(0), seats);
        let found: Vec<_> = (0..=8).map(widest).collect();
        let some = |ranks| Some(ranks);
        assert_eq!(
            found,
            [None, None, some(2), some(3), some(4), some(4), some(6), some(6), some(6)]
        );
        assert!(spec.may_have(ModelId::Expert(0), 3) && !spec.may_have(ModelId::Expert(0), 5));
        assert!(!spec.may_have(ModelId::Expert(0), 1) && !spec.may_have(ModelId::Expert(0), 12));
    }

    #[test]
    fn a_rigid_gang_has_all_its_ranks_or_none() {
        let spec = twelve("ranks: 6").unwrap();
        assert_eq!(
            [5, 6, 7].map(|seats| spec.widest(ModelId::Expert(0), seats)),
            [None, Some(6), Some(6)]
        );
        assert!(!spec.may_have(ModelId::Expert(0), 3));
    }

    #[test]
    fn a_width_that_cannot_keep_the_batch_is_refused_with_those_that_can() {
        let refused =
            [twelve("ranks: 5"), twelve("ranks: 6, minRanks: 5"), twelve("ranks: 4, minRanks: 6")];
        let refused: Vec<String> = refused.into_iter().map(Result::unwrap_err).collect();
        assert_eq!(
            refused,
            [
                "spec.gangs.expert.ranks: 5 ranks cannot share the 12 micro-batches of globalBatch / \
                 microBatch evenly; 1, 2, 3, 4, 6, 12 can",
                "spec.gangs.expert.minRanks: 5 ranks cannot share the 12 micro-batches of globalBatch / \
                 microBatch evenly; 1, 2, 3, 4, 6, 12 can",
                "spec.gangs.expert.minRanks: 6 is more than ranks, which is 4",
            ]
        );
    }
}
