//! Which pairs enter the pool of foreign pairs, and how often an expert meets them.

use std::collections::BTreeMap;

use super::*;

/// A pair as the shard stage sees it.
#[derive(Clone, Debug)]
struct Pair {
    key: String,
    owner: u32,
}

fn any_shards() -> impl Strategy<Value = Vec<Vec<Pair>>> {
    let pairs = prop::collection::vec(prop::collection::vec(0_u32..3, 0..20), 1..5);
    pairs.prop_map(|owners| {
        let shard = |(shard, owners): (usize, Vec<u32>)| -> Vec<Pair> {
            let pairs = owners.into_iter().enumerate();
            pairs.map(|(at, owner)| Pair { key: format!("{shard:03}{at:03}"), owner }).collect()
        };
        owners.into_iter().enumerate().map(shard).collect()
    })
}

proptest! {
    #[test]
    fn until_the_pool_wraps_each_foreign_pair_is_met_in_its_own_pass_and_no_other(
        seed: u64,
        shards in any_shards(),
        ooc in 0.1_f64..=1.0,
        passes in 1_u32..6,
    ) {
        // Expert 0's view: rows of each shard by pass, without its own.
        let view = |shard: &[Pair], pass: u32| -> Vec<String> {
            let is_here = |pair: &&Pair| {
                pair.owner != 0 && foreign_pass(seed, &pair.key, ooc) == u64::from(pass)
            };
            shard.iter().filter(is_here).map(|pair| pair.key.clone()).collect()
        };
        let counts = |shard: &Vec<Pair>| -> Vec<u32> {
            (0..passes).map(|pass| view(shard, pass).len() as u32).collect()
        };
        let sources = Sources { own: vec![3; 10], foreign: shards.iter().map(counts).collect() };
        let mut order = order(seed, &sources);

        let mut met: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for Draw { epoch, at } in order.draws(0, start(&sources, u64::from(passes))) {
            if let PairAt::Foreign { shard, pass, index } = at {
                let key = view(&shards[shard as usize], pass).swap_remove(index as usize);
                met.entry(key).or_default().push(epoch);
            }
        }
        for Pair { key, owner } in shards.iter().flatten() {
            let pass = foreign_pass(seed, key, ooc);
            let is_foreign = *owner != 0 && pass < u64::from(passes);
            let expected = if is_foreign { vec![pass] } else { Vec::new() };
            prop_assert_eq!(met.remove(key).unwrap_or_default(), expected, "{}", key);
        }
        prop_assert!(met.is_empty());
    }

    #[test]
    fn a_pool_of_all_passes_holds_every_pair(seed: u64, key: String, ooc in 0.001_f64..=1.0) {
        prop_assert!(foreign_pass(seed, &key, ooc) < (1.0 / ooc).ceil() as u64);
    }

    #[test]
    fn no_more_passes_are_planned_than_hold_the_dataset_once(
        ooc in 0.001_f64..=1.0,
        steps: u64,
        global_batch: u32,
        pairs: u64,
        experts: u32,
    ) {
        let passes = planned_passes(ooc, steps, global_batch, pairs, experts);
        prop_assert!((1..=(1.0 / ooc).ceil() as u32).contains(&passes));
    }
}

#[test]
fn each_pass_is_a_fresh_share_independent_of_other_samples() {
    let keys: Vec<String> = (0..20_000).map(|key| format!("{key:08}")).collect();
    let mut passes = [0; 10];
    let mut sampled = [0; 10];
    let mut mirrored = [0; 10];
    for key in &keys {
        let pass = foreign_pass(7, key, 0.1) as usize;
        passes[pass] += 1;
        sampled[pass] += u32::from(sample_draw(7, key) < 0.5);
        mirrored[pass] += u32::from(deciding_caption(7, key, 2) == 0);
    }
    // Five standard deviations of counts of 2,000 and of 1,000.
    assert!(passes.iter().all(|count| (1_788..2_212).contains(count)), "{passes:?}");
    assert!(sampled.iter().all(|count| (842..1_158).contains(count)), "{sampled:?}");
    assert!(mirrored.iter().all(|count| (842..1_158).contains(count)), "{mirrored:?}");
}

#[test]
fn twice_the_mean_passes_are_planned() {
    // 4 experts of 1,000 pairs each, which 50 steps of 100 pairs read five times over.
    assert_eq!(planned_passes(0.02, 50, 100, 4_000, 4), 10);
    assert_eq!(planned_passes(0.02, 51, 100, 4_000, 4), 11, "rounded up");
    assert_eq!(planned_passes(0.2, 50, 100, 4_000, 4), 5, "all of them");
    assert_eq!(planned_passes(0.02, 1, 1, 4_000, 4), 1, "at least one");
}

#[test]
fn without_a_share_there_is_no_pool() {
    assert_eq!(planned_passes(0.0, 50, 100, 4_000, 4), 0);
    assert_eq!(foreign_pass(7, "000042", 0.0), u64::MAX);
}
