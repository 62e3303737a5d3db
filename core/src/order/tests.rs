use std::collections::BTreeSet;

use expect_test::expect;
use proptest::prelude::*;

use super::*;

fn order(seed: u64, shards: &[u32]) -> Order {
    Order::new(seed, ModelId::Expert(3), &Digest([7; 32]), shards.to_vec())
}

/// The golden file of the order: if this changes, every run in the field changes its data.
#[test]
fn the_order_of_data_never_changes() {
    let draws: Vec<String> = order(7, &[3, 2, 4])
        .draws(0, 12)
        .into_iter()
        .map(|Draw { epoch, at }| format!("{epoch}:{}.{}", at.shard, at.index))
        .collect();
    let choices = Choices::new(7, 1, "000042");
    expect![[r#"
        0:2.0 0:1.0 0:2.1 0:0.1 0:0.2 0:2.3 0:1.1 0:0.0 0:2.2 1:0.2 1:2.3 1:0.1
        caption 1 of 5, crop [0.447798, 0.901672, 0.898776, 0.059506], flip false
    "#]]
    .assert_eq(&format!(
        "{}\ncaption {} of 5, crop {:.6?}, flip {}\n",
        draws.join(" "),
        choices.caption(5),
        choices.crop,
        choices.flip
    ));
}

proptest! {
    #[test]
    fn every_epoch_holds_each_pair_exactly_once(
        seed: u64,
        shards in prop::collection::vec(0_u32..40, 1..30),
        epoch in 0_u64..3,
    ) {
        let pairs: u64 = shards.iter().copied().map(u64::from).sum();
        let mut order = order(seed, &shards);
        let draws = order.draws(epoch * pairs, pairs);
        prop_assert!(draws.iter().all(|draw| draw.epoch == epoch));
        let different: BTreeSet<PairAt> = draws.iter().map(|draw| draw.at).collect();
        prop_assert_eq!(different.len() as u64, pairs);
    }

    #[test]
    fn a_stream_read_in_pieces_is_the_stream_read_whole(
        seed: u64,
        cuts in prop::collection::vec(0_u64..50, 0..6),
    ) {
        let shards = [5, 9, 1, 14];
        let mut at = 0;
        let mut pieces = Vec::new();
        for count in cuts {
            pieces.extend(order(seed, &shards).draws(at, count));
            at += count;
        }
        prop_assert_eq!(pieces, order(seed, &shards).draws(0, at));
    }

    #[test]
    fn the_ranks_shares_laid_end_to_end_are_the_batch(parts in 1_u32..9, size in 1_u32..64) {
        let batch = parts * size;
        for ranks in (1..=parts).filter(|ranks| parts % ranks == 0) {
            let laid: Vec<u32> = (0..ranks).flat_map(|rank| share(batch, rank, ranks)).collect();
            prop_assert_eq!(laid, (0..batch).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_chosen_caption_is_one_of_them(seed: u64, epoch: u64, key: String, captions in 1_usize..9) {
        prop_assert!(Choices::new(seed, epoch, &key).caption(captions) < captions);
        prop_assert!(deciding_caption(seed, &key, captions) < captions);
    }
}

#[test]
fn no_pairs_make_no_draws() {
    assert_eq!(order(1, &[]).draws(0, 4), vec![]);
}

#[test]
fn different_models_read_in_different_orders() {
    let of = |model| Order::new(7, model, &Digest([7; 32]), vec![100]).draws(0, 100);
    assert_ne!(of(ModelId::Seed), of(ModelId::Dense));
}
