//! The data stages one after the other, without a sentence encoder.

use std::collections::BTreeMap;
use std::io::Read;

use clade_core::ids::{Stage, WorkId};
use clade_core::job::Failure;
use clade_store::{DataManifest, keys};

use super::commit::{Desk, JobManifest};
use super::fixture::{Run, failure};
use super::index::IndexManifest;
use super::{cluster, commit};
use crate::context::{Counts, Ending};
use clade_pairs::fixture::{jpeg_that_claims, member, pair, pairs};
use clade_pairs::indexes::read_index;

mod changes;
mod foreign;

fn catalogue(run: &Run) -> DataManifest {
    let key = keys::catalogue_manifest(&run.name());
    run.wait(run.store.get_manifest(&key)).unwrap().0
}

/// Keys of a manifest's pairs, shard by shard.
fn keys_of(run: &Run, manifest: &DataManifest) -> Vec<Vec<String>> {
    let context = run.context(WorkId::job(Stage::Seal, 0), 1);
    let rows = |shard| read_index(&run.store, &context.runtime, shard).unwrap();
    let keys = |shard| rows(shard).into_iter().map(|row| row.key).collect();
    manifest.shards.iter().map(keys).collect()
}

#[test]
fn bad_pairs_are_counted_by_cause_and_listed_and_the_others_go_on() {
    let bad = vec![
        member("huge.jpg", jpeg_that_claims(20_000, 20_000)),
        member("huge.txt", "too large"),
        member("mute.txt", ""),
    ];
    let run = Run::over(&[[pairs("a", 6), bad].concat(), Vec::new()]);
    std::fs::write(run.input(1), b"rubbish").unwrap();
    let counts = run.job(Stage::Index, 0).unwrap();
    let expected = [
        ("pairs", 6),
        ("unusable", 2),
        ("unusable.missingImage", 1),
        ("unusable.tooManyPixels", 1),
    ];
    assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)).into());
    assert_eq!(run.job(Stage::Index, 1).unwrap()["unusable.unreadableTar"], 1);

    let counts = run.job(Stage::Catalog, 0).unwrap();
    assert_eq!((counts["pairs"], counts["unusable"], counts["tars"]), (6, 3, 2));
    let context = run.context(WorkId::job(Stage::Catalog, 0), 1);
    let (first, _) = commit::read::<IndexManifest>(&context, Stage::Index, 0).unwrap();
    let places = first.unusable.by_cause().map(|(_, listed)| &listed.places[0]);
    let listed: Vec<_> = places.map(|place| (place.key.as_deref(), place.offset > 0)).collect();
    assert_eq!(listed, [(Some("mute"), true), (Some("huge"), true)]);
}

#[test]
fn a_missing_tar_is_named() {
    let run = Run::over(&[pairs("a", 4)]);
    std::fs::remove_file(run.input(0)).unwrap();
    let failure = failure(run.job(Stage::Index, 0));
    assert!(matches!(&failure, Failure::Data { message } if message.contains("input-0.tar")));
}

#[test]
fn a_key_belongs_to_the_first_tar_that_has_it() {
    let second = [pair("a001", "again"), pairs("b", 3), pair("a000", "again")].concat();
    let run = Run::over(&[pairs("a", 4), second, pairs("c", 2)]);
    let counts = run.up_to(Stage::Catalog);
    assert_eq!((counts["pairs"], counts["unusable.duplicateKey"]), (9, 2));
    let catalogue = catalogue(&run);
    assert_eq!(catalogue.pairs, 9);
    let keys = keys_of(&run, &catalogue);
    assert_eq!(keys[1], ["b000", "b001", "b002"]);
    assert_eq!((keys[0].len(), keys[2].len()), (4, 2));
    assert!(
        catalogue.shards[0].index.contains("/index/0/"),
        "it lost nothing, so nothing is copied"
    );
}

#[test]
fn too_many_bad_pairs_stop_the_run_with_the_list() {
    let bad = (0..6).map(|number| member(&format!("{number}.txt"), "no picture")).collect();
    let mut run = Run::over(&[pairs("a", 4), bad]);
    run.up_to(Stage::Index);
    let error = failure(run.job(Stage::Catalog, 0));
    let message = error.to_string();
    assert!(!error.may_retry());
    assert!(message.contains("6 of 10 pairs are unusable (60.0%"), "{message}");
    assert!(message.contains("6 missingImage"), "{message}");
    let list = message.split_once("the list is in ").unwrap().1.split_once(';').unwrap().0;
    assert!(std::fs::read_to_string(list).unwrap().contains("\"5\""));

    run.spec.spec.dataset.max_bad_share = clade_core::spec::Share(0.6);
    assert_eq!(run.job(Stage::Catalog, 0).unwrap()["pairs"], 4);
}

#[test]
fn an_unreadable_tar_weighs_as_much_as_the_pairs_it_held() {
    let mut run = Run::over(&[pairs("a", 6), pairs("b", 6)]);
    let size = std::fs::metadata(run.input(1)).unwrap().len();
    std::fs::write(run.input(1), vec![7; usize::try_from(size).unwrap()]).unwrap();
    run.up_to(Stage::Index);
    let message = failure(run.job(Stage::Catalog, 0)).to_string();
    assert!(message.contains("7 of 13 pairs are unusable (53.8%"), "{message}");
    assert!(message.contains("about 6 pairs behind the faults of unreadable tars"), "{message}");
    run.spec.spec.dataset.max_bad_share = clade_core::spec::Share(0.6);
    assert_eq!(run.job(Stage::Catalog, 0).unwrap()["pairs"], 6);
}

#[test]
fn a_dataset_too_small_to_train_on_is_refused_with_the_ways_out() {
    let run = Run::over(&[vec![member("README.txt.md", "nothing")]]);
    run.up_to(Stage::Index);
    let message = failure(run.job(Stage::Catalog, 0)).to_string();
    assert!(message.contains("has no usable pair"), "{message}");

    let run = Run::over(&[pairs("a", 3)]);
    run.up_to(Stage::Index);
    let failure = failure(run.job(Stage::Catalog, 0));
    assert!(matches!(&failure, Failure::Config { message } if message.contains("globalBatch")));
}

#[test]
fn fewer_pairs_than_fine_clusters_are_refused() {
    let mut run = Run::over(&[pairs("a", 5)]);
    run.spec.spec.clusters.fine = 6;
    run.up_to(Stage::Embed);
    let failure = failure(run.job(Stage::Cluster, 0));
    assert!(matches!(&failure, Failure::Config { message } if message.contains("6 fine clusters")));
}

#[test]
fn every_pair_lands_in_one_expert_with_its_bytes_and_captions() {
    let second = [pairs("b", 17), pair("a003", "a duplicate"), vec![member("x.txt", "alone")]];
    let run = Run::over(&[pairs("a", 20), second.concat()]);
    let counts = run.up_to(Stage::Seal);
    assert_eq!(counts["pairs"], 37);
    assert_eq!(counts["pairs.expert-0"] + counts["pairs.expert-1"], 37);

    let mut found = BTreeMap::new();
    for expert in 0..2 {
        let key = keys::expert_manifest(&run.name(), expert);
        let (manifest, _) = run.wait(run.store.get_manifest::<DataManifest>(&key)).unwrap();
        assert_eq!(manifest.pairs, counts[&format!("pairs.expert-{expert}")]);
        assert!(manifest.shards.len() > 2, "small shards roll over");
        for shard in &manifest.shards {
            let bytes = run.wait(run.store.get(&shard.tar)).unwrap();
            assert_eq!(Some(clade_store::digest(&bytes)), shard.sha256);
            let members = members(&bytes);
            let context = run.context(WorkId::job(Stage::Seal, 0), 1);
            for row in read_index(&run.store, &context.runtime, shard).unwrap() {
                let start = usize::try_from(row.offset).unwrap();
                let picture = bytes.slice(start..start + row.length as usize);
                assert_eq!(members[&format!("{}.jpg", row.key)], picture);
                let texts: serde_json::Value =
                    serde_json::from_slice(&members[&format!("{}.json", row.key)]).unwrap();
                assert_eq!(texts["texts"][0], row.captions[0].as_str());
                assert!(found.insert(row.key, (expert, picture)).is_none(), "written twice");
            }
        }
    }
    assert_eq!(found.len(), 37);
    for (key, (_, picture)) in &found {
        assert_eq!(*picture, clade_pairs::fixture::jpeg(8, 8, key));
    }
    // The toy embedding knows four kinds; none is torn apart.
    let kind = |number: usize| (number % 4, found[&format!("a{number:03}")].0);
    let of: BTreeMap<_, _> = (0..20).map(kind).collect();
    assert!((0..20).all(|number| of[&(number % 4)] == kind(number).1));
}

fn members(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

#[test]
fn the_centres_do_not_depend_on_how_pairs_are_spread_over_tars() {
    let all = pairs("a", 24);
    let (first, second) = all.split_at(20);
    let one = Run::over(std::slice::from_ref(&all));
    let two = Run::over(&[second.to_vec(), first.to_vec()]);
    let routers = [one, two].map(|mut run| {
        run.spec.spec.clusters.sample = 10;
        run.up_to(Stage::Cluster);
        let context = run.context(WorkId::job(Stage::Assign, 0), 1);
        cluster::read_router(&context).unwrap().0
    });
    assert_eq!(routers[0], routers[1]);
    assert_eq!(routers[0].fine_to_expert.len(), 4);
}

#[test]
fn a_try_after_a_crash_does_the_same_and_removes_what_the_crash_left() {
    let run = Run::over(&[pairs("a", 24)]);
    let counts = run.up_to(Stage::Shard);
    let folder = keys::stage_part(&run.name(), Stage::Shard, 0);
    let manifest = keys::stage_manifest(&run.name(), Stage::Shard, 0);
    // Killed before its manifest, with a tar half written.
    run.wait(run.store.delete(&manifest)).unwrap();
    let half = run.store.local_path(&format!("{folder}/try-1/expert-0-000009.tar#1")).unwrap();
    std::fs::write(&half, b"half").unwrap();

    assert_eq!(run.job_as(Stage::Shard, 0, 2).unwrap(), counts);
    let left = run.wait(run.store.list(&folder)).unwrap();
    let is_own = |key: &str| key == manifest || key.starts_with(&format!("{folder}/try-2/"));
    assert!(left.iter().all(|entry| is_own(&entry.key)), "{left:?}");
    assert!(!half.parent().unwrap().exists());
    assert_eq!(run.context(WorkId::job(Stage::Shard, 0), 3).scratch.read_dir().unwrap().count(), 0);

    // A third try finds it done, and the seal is made from the second's shards.
    assert_eq!(run.job_as(Stage::Shard, 0, 3).unwrap(), counts);
    assert_eq!(run.job(Stage::Seal, 0).unwrap()["pairs"], 24);
}

#[test]
fn of_two_tries_that_meet_the_first_wins_and_the_other_clears_up() {
    #[derive(PartialEq, serde::Serialize, serde::Deserialize)]
    struct Toy(Counts);
    impl JobManifest for Toy {
        fn counts(&self) -> &Counts {
            &self.0
        }
    }
    let run = Run::over(&[pairs("a", 4)]);
    let contexts = [1, 2].map(|number| run.context(WorkId::job(Stage::Embed, 0), number));
    let toy = |number| Toy(Counts::from([("try".to_owned(), number)]));
    let [zombie, own] = contexts.each_ref().map(|context| Desk::new(context, Stage::Embed, 0));
    zombie.put("file", b"z".to_vec()).unwrap();
    own.put("file", b"o".to_vec()).unwrap();
    assert_eq!(zombie.commit(&toy(1)).unwrap(), toy(1).0);
    assert_eq!(own.commit(&toy(2)).unwrap(), toy(1).0);
    assert_eq!(run.wait(run.store.size(&zombie.key("file"))).unwrap(), Some(1));
    assert_eq!(run.wait(run.store.size(&own.key("file"))).unwrap(), None);
    // The answer to the first commit was lost, and it asks again.
    assert_eq!(zombie.commit(&toy(1)).unwrap(), toy(1).0);
    assert_eq!(run.wait(run.store.size(&zombie.key("file"))).unwrap(), Some(1));
}

#[test]
fn a_seal_interrupted_between_experts_goes_on() {
    let run = Run::over(&[pairs("a", 24)]);
    let counts = run.up_to(Stage::Seal);
    run.wait(run.store.delete(&keys::stage_manifest(&run.name(), Stage::Seal, 0))).unwrap();
    run.wait(run.store.delete(&keys::expert_manifest(&run.name(), 1))).unwrap();
    assert_eq!(run.job_as(Stage::Seal, 0, 2).unwrap(), counts);
}

#[test]
fn an_expert_that_cannot_fill_a_batch_is_named_with_the_ways_out() {
    let mut run = Run::over(&[pairs("a", 24)]);
    let counts = run.up_to(Stage::Shard);
    let smallest = counts["pairs.expert-0"].min(counts["pairs.expert-1"]);
    run.spec.spec.training.global_batch = u32::try_from(smallest + 1).unwrap();
    let failure = failure(run.job(Stage::Seal, 0));
    assert!(!failure.may_retry());
    let message = failure.to_string();
    assert!(message.contains(&format!("has {smallest} pairs")), "{message}");
    assert!(message.contains("expert-") && message.contains("spec.clusters.experts"), "{message}");
}

#[test]
fn a_job_that_is_asked_to_stop_stops_and_leaves_no_manifest() {
    let run = Run::over(&[pairs("a", 8)]);
    let context = run.context(WorkId::job(Stage::Index, 0), 1);
    context.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(super::index::run(&context, 0), Err(Ending::Stopped)));
    assert_eq!(run.wait(run.store.list("runs/toy/index")).unwrap(), []);
}

#[test]
fn a_missing_encoder_is_named_with_the_way_to_get_it() {
    let run = Run::over(&[pairs("a", 4)]);
    run.up_to(Stage::Catalog);
    let context = run.context(WorkId::job(Stage::Embed, 0), 1);
    let failure = failure(super::embed::run(&context, 0));
    let message = failure.to_string();
    assert!(!failure.may_retry());
    assert!(message.contains("nowhere") && message.contains("make setup"), "{message}");
}

#[test]
fn the_real_encoder_puts_like_captions_together() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/all-minilm-l6-v2");
    if !std::path::Path::new(folder).join("model.safetensors").exists() {
        eprintln!("skipped: no sentence encoder in assets (make setup fetches it)");
        return;
    }
    let captions = [
        "a cat sleeping on a sofa",
        "a kitten resting on the couch",
        "map of the rivers of Brazil",
        "Brazilian river map",
    ];
    let tar = (0..).zip(captions).flat_map(|(number, text)| pair(&format!("k{number}"), text));
    let mut run = Run::over(&[tar.collect()]);
    run.spec.spec.embedding.encoder = folder.to_owned();
    run.up_to(Stage::Catalog);
    let context = run.context(WorkId::job(Stage::Embed, 0), 1);
    assert_eq!(super::embed::run(&context, 0).unwrap()["pairs"], 4);
    let (manifest, _) =
        commit::read::<super::embed::TablesManifest>(&context, Stage::Embed, 0).unwrap();
    let rows = super::embed::read_embeddings(&context, &manifest.tables[0]).unwrap();
    assert_eq!((rows.width, rows.keys.len()), (384, 4));
    let row = |number: usize| &rows.values[number * 384..(number + 1) * 384];
    let alike = |a, b| row(a).iter().zip(row(b)).map(|(x, y)| x * y).sum::<f32>();
    assert!((alike(0, 0) - 1.0).abs() < 1e-4);
    assert!(alike(0, 1) > 0.5 && alike(2, 3) > 0.5);
    assert!(alike(0, 2) < 0.3 && alike(1, 3) < 0.3);
}
