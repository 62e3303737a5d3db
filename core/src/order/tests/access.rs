//! Wherever and in whatever pieces a stream is read, it is the same stream, and cheap to enter.

use super::*;

proptest! {
    #[test]
    fn a_stream_read_in_pieces_is_the_stream_read_whole(
        seed: u64,
        sources in any_sources(),
        cuts in prop::collection::vec(0_u64..150, 0..6),
    ) {
        let mut at = 0;
        let mut pieces = Vec::new();
        let mut reader = order(seed, &sources);
        for count in cuts {
            pieces.extend(reader.draws(at, count));
            at += count;
        }
        prop_assert_eq!(pieces.len() as u64, at);
        prop_assert_eq!(pieces, order(seed, &sources).draws(0, at));
    }

    #[test]
    fn a_stream_read_at_random_is_the_stream_read_forwards(
        seed: u64,
        sources in any_sources(),
        positions in prop::collection::vec(0_u64..600, 1..20),
    ) {
        let forwards = order(seed, &sources).draws(0, 600);
        let mut jumping = order(seed, &sources);
        for position in positions {
            let draw = forwards[position as usize];
            prop_assert_eq!(jumping.draws(position, 1), vec![draw], "by one reader that jumps");
            let fresh = order(seed, &sources).draws(position, 1);
            prop_assert_eq!(fresh, vec![draw], "by a reader that begins there");
        }
    }
}

#[test]
fn a_stream_of_a_billion_pairs_takes_the_memory_of_one_block() {
    let sources = Sources { own: vec![1_000; 1_000_000], foreign: vec![vec![100; 2]; 100_000] };
    let mut order = order(7, &sources);
    assert_eq!(order.pairs_of_epoch(0), 1_010_000_000);
    for position in [5_000_000_000, 700_000_000] {
        assert_eq!(order.draws(position, 32).len(), 32);
        let block = order.block.as_ref().unwrap().len();
        assert!((8_000..8_100).contains(&block), "a block of {block} pairs");
    }
}

proptest! {
    #[test]
    fn the_shards_of_a_block_are_those_its_pairs_lie_in(
        seed: u64,
        sources in any_sources(),
        position in 0_u64..600,
    ) {
        let mut order = order(seed, &sources);
        let (end, shards) = order.block_of(position);
        if order.draws(0, 1).is_empty() {
            prop_assert_eq!((end, shards), (position, vec![]));
        } else {
            prop_assert!(end > position);
            let rest = order.draws(position, end - position);
            prop_assert!(rest.iter().all(|draw| shards.contains(&draw.at.shard())));
            prop_assert!(order.block_of(end - 1).0 == end && order.block_of(end).0 > end);
        }
    }
}
