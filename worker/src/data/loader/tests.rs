use std::collections::BTreeSet;

use clade_core::ids::{Stage, WorkId};
use clade_store::keys;

use super::*;
use crate::data::fixture::{Run, member, pairs, png, write_tar};

const SIDE: usize = 4;

fn shape(threads: usize) -> Shape {
    let tokens = Arc::new(|caption: &str| vec![i64::try_from(caption.len()).unwrap(), 0]);
    Shape { image_size: SIDE, tokens, threads }
}

/// Rank `rank` of `ranks` over the catalogue of `run`.
fn loader(run: &Run, rank: u32, ranks: u32, threads: usize) -> Loader {
    let mut context = run.context(WorkId::Model(ModelId::Seed), 1);
    (context.job.rank, context.job.ranks) = (rank, ranks);
    let key = keys::catalogue_manifest(&run.name());
    let (data, _) = run.wait(run.store.get_manifest::<DataManifest>(&key)).unwrap();
    Loader::new(&context, ModelId::Seed, &data, shape(threads)).unwrap()
}

fn catalogued(tars: &[Vec<(String, Vec<u8>)>]) -> Run {
    let run = Run::over(tars);
    run.up_to(Stage::Catalog);
    run
}

#[test]
fn each_pair_of_an_epoch_comes_exactly_once_over_a_resume() {
    let run = catalogued(&[pairs("a", 7), pairs("b", 5), pairs("c", 8)]);
    let mut seen = Vec::new();
    let mut first = loader(&run, 0, 1, 1);
    for step in 0..2 {
        seen.extend(first.batch(4 * step).unwrap().keys);
    }
    // The first is gone with what it had read ahead; another goes on at the cursor.
    drop(first);
    let mut second = loader(&run, 0, 1, 1);
    for step in 2..5 {
        let loaded = second.batch(4 * step).unwrap();
        assert_eq!(loaded.epoch, 0);
        seen.extend(loaded.keys);
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 20);
    assert_eq!(seen.len(), 20);
    let next = second.batch(20).unwrap();
    assert_eq!(next.epoch, 1);
    assert_ne!(next.keys, seen[..4], "the next epoch has an order of its own");
}

#[test]
fn the_ranks_batches_laid_end_to_end_are_the_single_ranks() {
    let run = catalogued(&[pairs("a", 7), pairs("b", 6)]);
    let mut alone = loader(&run, 0, 1, 1);
    let mut ranks = [loader(&run, 0, 2, 2), loader(&run, 1, 2, 1)];
    for step in 0..5 {
        let whole = alone.batch(4 * step).unwrap();
        let parts = ranks.each_mut().map(|rank| rank.batch(4 * step).unwrap());
        for part in &parts {
            assert_eq!(part.keys, whole.keys);
        }
        let [a, b] = parts.map(|part| part.batch);
        assert_eq!([a.pixels, b.pixels].concat(), whole.batch.pixels);
        assert_eq!([a.tokens, b.tokens].concat(), whole.batch.tokens);
        assert_eq!(whole.batch.pixels.len(), 4 * 3 * SIDE * SIDE);
        assert_eq!(whole.batch.valid, [true; 4]);
    }
}

#[test]
fn any_cursor_may_be_asked_for() {
    let run = catalogued(&[pairs("a", 9)]);
    let mut loader = loader(&run, 0, 1, 1);
    let at = |loader: &mut Loader, cursor| loader.batch(cursor).unwrap();
    let (zero, four) = (at(&mut loader, 0), at(&mut loader, 4));
    assert_eq!(at(&mut loader, 0), zero);
    assert_eq!(at(&mut loader, 4), four);
    let two = at(&mut loader, 2);
    assert_eq!([&two.keys[..2], &two.keys[2..]], [&zero.keys[2..], &four.keys[..2]]);
}

#[test]
fn a_pair_that_does_not_decode_keeps_its_slot_and_is_counted() {
    let mut picture = png(8, 8, "broken");
    let data = picture.windows(4).position(|name| name == b"IDAT").unwrap();
    // Header and end stay sound, so the index cannot tell.
    picture[data + 8..data + 16].fill(0xee);
    let broken = vec![member("broken.png", picture), member("broken.txt", "hollow")];
    let run = catalogued(&[[pairs("a", 3), broken].concat()]);
    let loaded = loader(&run, 0, 1, 1).batch(0).unwrap();
    let slot = loaded.keys.iter().position(|key| key == "broken").unwrap();
    let expected: Vec<bool> = (0..4).map(|at| at != slot).collect();
    assert_eq!(loaded.batch.valid, expected);
    assert_eq!(loaded.masked, BTreeMap::from([("unreadable", 1)]));
    assert_eq!(loaded.batch.pixels.len(), 4 * 3 * SIDE * SIDE);
    let own = 3 * SIDE * SIDE;
    assert!(loaded.batch.pixels[slot * own..(slot + 1) * own].iter().all(|&value| value == 128));
}

#[test]
fn an_input_that_changed_or_went_away_ends_the_work_with_its_name() {
    let run = catalogued(&[pairs("a", 4)]);
    let tar = run.input(0);
    write_tar(&tar, &pairs("a", 5));
    let error = loader(&run, 0, 1, 1).batch(0).unwrap_err();
    assert!(
        matches!(&error, Failure::Data { message } if message.contains("has changed")),
        "{error}"
    );
    std::fs::remove_file(&tar).unwrap();
    let error = loader(&run, 0, 1, 1).batch(0).unwrap_err();
    assert!(error.to_string().contains("input-0.tar does not exist"), "{error}");
    assert!(!error.may_retry());
}

#[test]
fn a_damaged_shard_of_ours_is_found_when_opened() {
    let run = Run::over(&[pairs("a", 24)]);
    run.up_to(Stage::Seal);
    let key = keys::expert_manifest(&run.name(), 0);
    let (data, _) = run.wait(run.store.get_manifest::<DataManifest>(&key)).unwrap();
    let context = run.context(WorkId::Model(ModelId::Expert(0)), 1);
    let new = || Loader::new(&context, ModelId::Expert(0), &data, shape(1)).unwrap();
    assert_eq!(new().batch(0).unwrap().batch.valid, [true; 4]);
    for shard in &data.shards {
        let path = run.store.local_path(&shard.tar).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[600] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let error = new().batch(0).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    assert!(error.may_retry());
}
