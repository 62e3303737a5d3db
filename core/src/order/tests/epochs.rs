//! An epoch is the model's own pairs and one slice of the pool, each once.

use super::*;

proptest! {
    #[test]
    fn every_epoch_holds_own_pairs_and_its_slice_exactly_once(
        seed: u64,
        sources in any_sources(),
        epoch in 0_u64..8,
    ) {
        let mut order = order(seed, &sources);
        let (start, list) = (start(&sources, epoch), list(&sources, epoch));
        prop_assert_eq!(order.pairs_of_epoch(epoch), list.len() as u64);
        let draws = order.draws(start, list.len() as u64);
        prop_assert!(draws.iter().all(|draw| draw.epoch == epoch));
        let mut drawn: Vec<PairAt> = draws.iter().map(|draw| draw.at).collect();
        drawn.sort_unstable();
        prop_assert_eq!(drawn, list);
    }

    #[test]
    fn the_pool_is_drawn_anew_from_the_epoch_that_wraps(seed: u64, sources in any_sources()) {
        let passes = sources.foreign.first().map_or(0, Vec::len) as u64;
        let foreign = |epoch| -> Vec<PairAt> {
            let list = list(&sources, epoch).into_iter();
            list.filter(|at| matches!(at, PairAt::Foreign { .. })).collect()
        };
        let order = order(seed, &sources);
        match order.wraps_at() {
            Some(wraps) => {
                prop_assert_eq!(wraps, passes);
                let first: Vec<PairAt> = (0..wraps).flat_map(foreign).collect();
                let second: Vec<PairAt> = (wraps..2 * wraps).flat_map(foreign).collect();
                prop_assert!(!first.is_empty());
                prop_assert_eq!(first, second);
            }
            None => prop_assert_eq!((0..passes).flat_map(foreign).count(), 0),
        }
    }
}

/// A shuffle that forgot part of its seed would repeat itself.
#[test]
fn epochs_and_blocks_are_shuffled_each_in_a_way_of_its_own() {
    let mut order = order(7, &Sources { own: vec![20; 16], foreign: Vec::new() });
    let mut indexes = |block: u64| -> Vec<u32> {
        let draws = order.draws(block * 160, 160).into_iter();
        draws
            .map(|draw| match draw.at {
                PairAt::Own { index, .. } | PairAt::Foreign { index, .. } => index,
            })
            .collect()
    };
    let blocks: Vec<Vec<u32>> = (0..4).map(&mut indexes).collect();
    for (at, block) in blocks.iter().enumerate() {
        assert!(!blocks[..at].contains(block), "block {at} is shuffled like one before it");
    }
}
