//! What the properties share, and the golden file.

#![expect(clippy::cast_possible_truncation, reason = "the numbers here are small")]

mod access;
mod batches;
mod choices;
mod epochs;
mod histories;
mod pool;
mod provenance;
mod spread;

use std::fmt::Write as _;

use expect_test::expect_file;
use proptest::prelude::*;

use super::*;
use crate::ids::Step;

fn order(seed: u64, sources: &Sources) -> Order {
    Order::new(seed, ModelId::Expert(3), &Digest([7; 32]), sources.clone())
}

/// Up to four blocks of own pairs, at least one, and a pool of up to three passes or none.
fn any_sources() -> impl Strategy<Value = Sources> {
    let own = prop::collection::vec(0_u32..7, 1..30)
        .prop_filter("a model has pairs", |own| own.iter().any(|&pairs| pairs > 0));
    let pool = (0_usize..6, 0_usize..4);
    let foreign = pool.prop_flat_map(|(shards, passes)| {
        prop::collection::vec(prop::collection::vec(0_u32..5, passes), shards)
    });
    (own, foreign).prop_map(|(own, foreign)| Sources { own, foreign })
}

/// Every pair of an epoch's list, in rising order, as the documents define it.
fn list(Sources { own, foreign }: &Sources, epoch: u64) -> Vec<PairAt> {
    let own = (0..)
        .zip(own)
        .flat_map(|(shard, &pairs)| (0..pairs).map(move |index| PairAt::Own { shard, index }));
    let passes = foreign.first().map_or(1, |passes| passes.len().max(1));
    let pass = epoch as usize % passes;
    let foreign = (0..).zip(foreign).flat_map(|(shard, passes)| {
        let (pairs, pass) = (passes.get(pass).copied().unwrap_or(0), pass as u32);
        (0..pairs).map(move |index| PairAt::Foreign { shard, pass, index })
    });
    own.chain(foreign).collect()
}

/// The stream position at which `epoch` begins, counted pair by pair.
fn start(sources: &Sources, epoch: u64) -> u64 {
    (0..epoch).map(|epoch| list(sources, epoch).len() as u64).sum()
}

fn show(Draw { epoch, at }: Draw) -> String {
    match at {
        PairAt::Own { shard, index } => format!("{epoch}:{shard}.{index}"),
        PairAt::Foreign { shard, pass, index } => format!("{epoch}:f{shard}.{pass}.{index}"),
    }
}

/// A difference here is a change of format: every run in the field would change its data.
#[test]
fn the_order_of_data_never_changes() {
    const SIZE: u32 = 8;
    let sources = Sources {
        own: vec![2, 0, 1, 3, 1, 2, 1, 1, 2, 1],
        foreign: vec![vec![1, 2], vec![0, 2], vec![2, 0]],
    };
    let bad = [PairAt::Own { shard: 3, index: 1 }, PairAt::Foreign { shard: 2, pass: 0, index: 1 }];
    let mut order = order(7, &sources);
    let mut golden = String::from(
        "The order of data: epoch:shard.index of each pair, fshard.pass.index of a foreign one,\n\
         in brackets if masked. A difference here is a change of format: every run in the field\n\
         would change its data.\n\n",
    );
    for step in 0..9 {
        let batch = order.batch(cursor(Step(step), SIZE), SIZE);
        let batch = batch.with_masks(|draw| bad.contains(&draw.at));
        write!(golden, "step {step}").unwrap();
        for &Slot { draw, valid } in batch.slots() {
            let shown = show(draw);
            let shown = if valid { shown } else { format!("[{shown}]") };
            write!(golden, " {shown}").unwrap();
        }
        golden.push('\n');
    }
    writeln!(golden, "\nwraps at epoch {:?}", order.wraps_at()).unwrap();
    for key in ["000042", "000043", "a", ""] {
        writeln!(golden, "`{key}` is foreign in pass {}", foreign_pass(7, key, 0.02)).unwrap();
    }
    expect_file!["golden.txt"].assert_eq(&golden);
}

#[test]
fn a_model_without_pairs_of_its_own_draws_nothing() {
    let mut order = order(1, &Sources { own: vec![0], foreign: vec![vec![3]] });
    assert_eq!(order.draws(0, 4), vec![]);
    assert_eq!(order.batch(0, 4).share(1, 2), []);
    assert_eq!(order.pairs_of_epoch(0), 0);
    assert_eq!(order.wraps_at(), None);
    let foreign = PairAt::Foreign { shard: 0, pass: 0, index: 0 };
    assert!(order.positions_of(foreign, 9).is_empty());
}

#[test]
fn different_models_data_and_seeds_read_in_different_orders() {
    let of = |seed, model, data| {
        let sources = Sources { own: vec![100], foreign: Vec::new() };
        Order::new(seed, model, &Digest([data; 32]), sources).draws(0, 100)
    };
    let one = of(7, ModelId::Seed, 7);
    assert_ne!(one, of(7, ModelId::Dense, 7));
    assert_ne!(one, of(7, ModelId::Seed, 8));
    assert_ne!(one, of(8, ModelId::Seed, 7));
}
