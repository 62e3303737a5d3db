//! Inputs that change between the jobs that read them.

use std::os::unix::fs::FileExt as _;

use clade_core::spec::Share;

use super::*;

/// Changes one byte of the picture of each of the first `count` pairs of an input tar.
fn spoil(run: &Run, count: usize) {
    let context = run.context(WorkId::job(Stage::Shard, 0), 1);
    let shard = &catalogue(run).shards[0];
    let rows = read_index(&run.store, &context.runtime, shard).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(run.input(0)).unwrap();
    for row in &rows[..count] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, row.offset + 20).unwrap();
        file.write_all_at(&[byte[0] ^ 1], row.offset + 20).unwrap();
    }
}

#[test]
fn a_pair_that_changed_since_it_was_indexed_is_counted_listed_and_left_out() {
    let run = Run::over(&[pairs("a", 24), pairs("b", 10)]);
    run.up_to(Stage::Assign);
    spoil(&run, 2);
    let counts = run.job(Stage::Shard, 0).unwrap();
    assert_eq!((counts["pairs"], counts["unusable.changedPair"]), (22, 2));
    let context = run.context(WorkId::job(Stage::Shard, 0), 1);
    let (manifest, _) =
        commit::read::<crate::stages::shard::ShardManifest>(&context, Stage::Shard, 0).unwrap();
    let (_, listed) = manifest.unusable.by_cause().next().unwrap();
    let keys: Vec<_> = listed.places.iter().map(|place| place.key.as_deref().unwrap()).collect();
    assert_eq!(keys, ["a000", "a001"]);
    assert!(listed.places[0].tar.ends_with("input-0.tar") && listed.places[0].offset == 512);

    run.job(Stage::Shard, 1).unwrap();
    let counts = run.job(Stage::Seal, 0).unwrap();
    assert_eq!((counts["pairs"], counts["unusable.changedPair"]), (32, 2));
}

#[test]
fn too_many_changed_pairs_stop_the_run_with_the_list() {
    let mut run = Run::over(&[pairs("a", 24)]);
    run.up_to(Stage::Assign);
    spoil(&run, 6);
    run.job(Stage::Shard, 0).unwrap();
    run.spec.spec.dataset.max_bad_share = Share(0.2);
    let error = failure(run.job(Stage::Seal, 0));
    let message = error.to_string();
    assert!(!error.may_retry());
    assert!(message.contains("6 of 24 pairs are not those that were indexed (25.0%"), "{message}");
    let list = message.split_once("the list is in ").unwrap().1.split_once(';').unwrap().0;
    assert!(std::fs::read_to_string(list).unwrap().contains("a005"));
}

#[test]
fn a_tar_that_was_cut_since_loses_its_last_pairs_and_no_more() {
    let run = Run::over(&[pairs("a", 24)]);
    run.up_to(Stage::Assign);
    let bytes = std::fs::read(run.input(0)).unwrap();
    std::fs::write(run.input(0), &bytes[..bytes.len() / 2]).unwrap();
    let counts = run.job(Stage::Shard, 0).unwrap();
    assert_eq!(counts["pairs"] + counts["unusable.changedPair"], 24);
    assert!((10..14).contains(&counts["pairs"]), "{counts:?}");
}
