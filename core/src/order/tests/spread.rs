//! Where the pairs of an epoch lie in it: foreign ones evenly, and few shards at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::order::epoch::{BLOCK_SHARDS, Cut};

/// The draws of each block of an epoch.
fn blocks(order: &mut Order, sources: &Sources, epoch: u64) -> Vec<Vec<PairAt>> {
    let start = start(sources, epoch);
    let offsets: Vec<u64> = order.lay_out(epoch).cuts().iter().map(|cut| cut.offset()).collect();
    let blocks = offsets.windows(2);
    blocks
        .map(|ends| {
            let draws = order.draws(start + ends[0], ends[1] - ends[0]);
            draws.into_iter().map(|draw| draw.at).collect()
        })
        .collect()
}

proptest! {
    #[test]
    fn foreign_pairs_are_spread_evenly_over_the_blocks(
        seed: u64,
        sources in any_sources(),
        epoch in 0_u64..4,
    ) {
        let mut order = order(seed, &sources);
        let pairs = list(&sources, epoch);
        let is_foreign = |at: &&PairAt| matches!(at, PairAt::Foreign { .. });
        let foreign = pairs.iter().filter(is_foreign).count() as f64;
        let own = pairs.len() as f64 - foreign;
        let (mut own_before, mut foreign_before) = (0, 0);
        for block in blocks(&mut order, &sources, epoch) {
            let foreign_here = block.iter().filter(is_foreign).count();
            own_before += block.len() - foreign_here;
            foreign_before += foreign_here;
            let even = foreign * own_before as f64 / own;
            prop_assert!(
                (foreign_before as f64 - even).abs() < 1.0,
                "{} foreign pairs where {} would be even", foreign_before, even
            );
        }
        prop_assert_eq!(own_before + foreign_before, pairs.len());
    }

    #[test]
    fn a_block_touches_few_shards_and_shares_no_own_shard(
        seed: u64,
        sources in any_sources(),
        epoch in 0_u64..4,
    ) {
        let mut order = order(seed, &sources);
        let mut blocks_of_own: BTreeMap<u32, usize> = BTreeMap::new();
        let mut visits_of_foreign = 0;
        let blocks = blocks(&mut order, &sources, epoch);
        for block in &blocks {
            let (mut own, mut foreign) = (BTreeSet::new(), BTreeSet::new());
            for at in block {
                match *at {
                    PairAt::Own { shard, .. } => own.insert(shard),
                    PairAt::Foreign { shard, .. } => foreign.insert(shard),
                };
            }
            prop_assert!(own.len() <= BLOCK_SHARDS);
            visits_of_foreign += foreign.len();
            for shard in own {
                *blocks_of_own.entry(shard).or_default() += 1;
            }
        }
        prop_assert!(blocks_of_own.values().all(|&blocks| blocks == 1));
        // Runs laid end to end visit a shard again only where one run ends within it.
        let seams = blocks.iter().filter(|block| !block.is_empty()).count() - 1;
        prop_assert!(visits_of_foreign <= sources.foreign.len() + seams);
    }
}

/// Shares are taken of the whole: rounding each block by itself would pile up.
#[test]
fn a_few_foreign_pairs_are_dealt_out_over_all_the_blocks() {
    let sources = Sources { own: vec![1; 80], foreign: vec![vec![5]] };
    let layout = order(7, &sources).lay_out(0);
    let cuts: Vec<(u64, u64)> =
        layout.cuts().iter().map(|&Cut { own, foreign }| (own, foreign)).collect();
    let every_second = (0..=10).map(|block| (8 * block, block / 2));
    assert_eq!(cuts[..11], every_second.collect::<Vec<_>>());
}
