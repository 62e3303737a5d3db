use std::fs;
use std::sync::atomic::Ordering;

use clade_core::ids::{ModelId, Stage};

use super::fixture::{Fixture, assets, picture, write_tar};
use super::*;

/// A fixture, unless set-up has not run here.
fn fixture() -> Option<Fixture> {
    match assets() {
        Ok(assets) => Some(Fixture::new(&assets)),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn failure(ending: Ending) -> Failure {
    match ending {
        Ending::Failed(failure) => failure,
        Ending::Stopped => panic!("it stopped instead"),
    }
}

#[test]
fn every_usable_picture_is_encoded_and_every_other_counted_by_cause() {
    let Some(fixture) = fixture() else { return };
    let png = picture(1);
    let mut pixels = vec![0; 9];
    pixels.copy_from_slice(b"not a png");
    let bad = [
        ("a.png", pixels),
        ("a.cls", b"0".to_vec()),
        ("b.png", png[..png.len() / 2].to_vec()),
        ("b.cls", b"1".to_vec()),
        ("c.png", png.clone()),
        ("c.cls", b"4".to_vec()),
        ("d.png", png.clone()),
        ("e.cls", b"2".to_vec()),
        ("f.PNG", png),
        ("f.cls", b" 1\n".to_vec()),
    ];
    let members: Vec<_> = bad.into_iter().map(|(name, it)| (name.to_owned(), it)).collect();
    write_tar(&fixture.set("classes").join("test/2.tar"), &members);

    let context = fixture.context(Stage::Evaluate, 0, 1);
    let counts = run(&context, 0).unwrap();
    assert_eq!(counts["pictures"], 25 + 24, "the two sets' usable pictures: {counts:?}");
    let causes: Vec<&str> = counts.keys().filter_map(|it| it.strip_prefix("unusable.")).collect();
    for cause in ["bad-label", "missing-label", "missing-picture", "unreadable"] {
        assert!(causes.contains(&cause), "{cause} is not among {causes:?}");
    }
    let (manifest, _) = commit::read::<EvaluateManifest>(&context, Stage::Evaluate, 0).unwrap();
    assert_eq!(manifest.model.model, ModelId::Seed);
    let set = &manifest.sets[0];
    assert_eq!(set.unusable.values().sum::<u64>(), 5);
    assert_eq!(set.examples.len(), 5);
    let arrays = read_arrays(&context, 0, &manifest, &set.features).unwrap();
    let features = arrays.matrix("image_features").unwrap();
    assert_eq!((features.rows, features.width), (25, 64));
    for row in features.values.chunks(64) {
        let length: f32 = row.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "rows have unit length");
    }
    assert_eq!(arrays.indices("labels").unwrap()[24], 1);
}

#[test]
fn a_second_try_finds_the_work_done_and_leaves_one_tries_files() {
    let Some(fixture) = fixture() else { return };
    let first = fixture.context(Stage::Evaluate, 1, 1);
    let counts = run(&first, 1).unwrap();
    // A try that meets the manifest only at its end: it has written files of its own.
    let second = fixture.context(Stage::Evaluate, 1, 2);
    let desk = Desk::new(&second, Stage::Evaluate, 1);
    desk.put("classification-0.json", b"{}".to_vec()).unwrap();
    let (manifest, _) = commit::read::<EvaluateManifest>(&first, Stage::Evaluate, 1).unwrap();
    let late = EvaluateManifest { incarnation: second.job.incarnation, ..manifest };
    assert_eq!(desk.commit(&late).unwrap(), counts);
    let folder = keys::stage_part(fixture.spec.name(), Stage::Evaluate, 1);
    let left = fixture.block_on(fixture.store.list(&folder)).unwrap();
    assert!(left.iter().all(|it| !it.key.contains("/try-2/")), "{left:?}");
    assert!(left.iter().any(|it| it.key.contains("/try-1/")));
    assert_eq!(run(&second, 1).unwrap(), counts);
}

#[test]
fn equal_captions_are_one_text() {
    let Some(fixture) = fixture() else { return };
    let context = fixture.context(Stage::Evaluate, 0, 1);
    run(&context, 0).unwrap();
    let (manifest, _) = commit::read::<EvaluateManifest>(&context, Stage::Evaluate, 0).unwrap();
    let set = &manifest.sets[1];
    assert_eq!((set.pictures, set.texts_count), (24, 4 + 24));
    let arrays = read_arrays(&context, 0, &manifest, &set.features).unwrap();
    assert_eq!(arrays.indices("pairs").unwrap().len(), 2 * 48);
}

#[test]
fn a_path_that_is_not_there_is_named_before_anything_is_computed() {
    let Some(fixture) = fixture() else { return };
    fs::remove_file(fixture.set("classes").join("classnames.txt")).unwrap();
    let context = fixture.context(Stage::Evaluate, 0, 1);
    let failure = failure(run(&context, 0).unwrap_err());
    assert!(matches!(failure, Failure::Config { .. }), "{failure}");
    assert!(failure.to_string().contains("classnames.txt"), "{failure}");
}

#[test]
fn a_tar_that_ends_early_and_a_set_too_bad_are_the_datas_fault() {
    let Some(fixture) = fixture() else { return };
    let tar = fixture.set("captions").join("test/0.tar");
    let bytes = fs::read(&tar).unwrap();
    fs::write(&tar, &bytes[..bytes.len() / 2 + 100]).unwrap();
    let context = fixture.context(Stage::Evaluate, 0, 1);
    let broken = failure(run(&context, 0).unwrap_err());
    assert!(matches!(broken, Failure::Data { .. }), "{broken}");
    assert!(broken.to_string().contains("0.tar"), "{broken}");

    let members: Vec<_> = (0..4)
        .flat_map(|index| {
            let text = if index < 2 { "a caption" } else { " \n" };
            [
                (format!("{index}.png"), picture(index)),
                (format!("{index}.txt"), text.as_bytes().to_vec()),
            ]
        })
        .collect();
    write_tar(&tar, &members);
    let bad = failure(run(&context, 0).unwrap_err());
    assert!(bad.to_string().contains("2 of 4 pictures are unusable [2 missing-caption]"), "{bad}");
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let Some(fixture) = fixture() else { return };
    let at = &fixture.models[&ModelId::Seed];
    let key = format!("{}/{MODEL_FILE}", keys::checkpoint(fixture.spec.name(), at));
    fixture.block_on(fixture.store.put(&key, b"junk".to_vec())).unwrap();
    let context = fixture.context(Stage::Evaluate, 0, 1);
    let failure = failure(run(&context, 0).unwrap_err());
    assert!(matches!(failure, Failure::Storage { .. }), "{failure}");
}

#[test]
fn a_job_that_is_asked_to_stop_commits_nothing() {
    let Some(fixture) = fixture() else { return };
    let context = fixture.context(Stage::Evaluate, 0, 1);
    context.stop.store(true, Ordering::Relaxed);
    assert!(matches!(run(&context, 0).unwrap_err(), Ending::Stopped));
    let desk = Desk::new(&context, Stage::Evaluate, 0);
    assert_eq!(desk.done::<EvaluateManifest>().unwrap(), None);
}
