//! Where in the stream a pair is drawn.

use super::*;

proptest! {
    #[test]
    fn the_positions_of_a_pair_are_those_a_search_of_the_stream_finds(
        seed: u64,
        sources in any_sources(),
        until in 0_u64..600,
    ) {
        let mut reader = order(seed, &sources);
        let stream = reader.draws(0, until);
        let period = sources.foreign.first().map_or(1, |passes| passes.len().max(1)) as u64;
        // One period's lists name every pair there is.
        for at in (0..period).flat_map(|epoch| list(&sources, epoch)) {
            let found: Vec<u64> = (0..).zip(&stream)
                .filter(|(_, draw)| draw.at == at)
                .map(|(position, _)| position)
                .collect();
            prop_assert_eq!(reader.positions_of(at, until), found, "{:?}", at);
        }
    }

    #[test]
    fn a_pair_that_is_not_there_has_no_positions(seed: u64, sources in any_sources()) {
        let order = order(seed, &sources);
        let (shards, foreign) = (sources.own.len() as u32, sources.foreign.len() as u32);
        let absent = [
            PairAt::Own { shard: shards, index: 0 },
            PairAt::Own { shard: 0, index: sources.own[0] },
            PairAt::Foreign { shard: foreign, pass: 0, index: 0 },
            PairAt::Foreign { shard: 0, pass: 3, index: 0 },
            PairAt::Foreign { shard: 0, pass: 0, index: 5 },
        ];
        for at in absent {
            prop_assert!(order.positions_of(at, 600).is_empty(), "{:?}", at);
        }
    }
}
