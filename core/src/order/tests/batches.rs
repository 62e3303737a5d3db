//! Global batches, the ranks' shares, and masks.

use super::*;

proptest! {
    #[test]
    fn the_ranks_shares_laid_end_to_end_are_the_batch(parts in 1_u32..9, size in 1_u32..64) {
        let batch = parts * size;
        for ranks in (1..=parts).filter(|ranks| parts % ranks == 0) {
            let laid: Vec<u32> = (0..ranks).flat_map(|rank| share(batch, rank, ranks)).collect();
            prop_assert_eq!(laid, (0..batch).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_masked_pair_keeps_its_slot(
        seed: u64,
        sources in any_sources(),
        from in 0_u64..300,
        size in 1_u32..40,
        bad in 1_u32..5,
    ) {
        let masked = |draw: &Draw| match draw.at {
            PairAt::Own { index, .. } | PairAt::Foreign { index, .. } => index % bad == 0,
        };
        let mut order = order(seed, &sources);
        let batch = order.batch(from, size).with_masks(masked);
        let draws = order.draws(from, u64::from(size));
        prop_assert_eq!(batch.slots().len(), draws.len());
        for (slot, draw) in batch.slots().iter().zip(draws) {
            prop_assert_eq!(*slot, Slot { draw, valid: !masked(&draw) });
        }
    }
}

#[test]
fn masks_add_up() {
    let mut order = order(7, &Sources { own: vec![4], foreign: Vec::new() });
    let is = |index| move |draw: &Draw| draw.at == PairAt::Own { shard: 0, index };
    let batch = order.batch(0, 4).with_masks(is(1)).with_masks(is(2));
    assert_eq!(batch.slots().iter().filter(|slot| slot.valid).count(), 2);
}
