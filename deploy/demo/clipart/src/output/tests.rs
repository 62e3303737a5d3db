use std::collections::BTreeSet;
use std::io::Read as _;

use image::{Rgb, RgbImage};

use super::*;
use crate::listing;
use crate::manifest::Cause;

/// Packages with `pictures` squares of random tiles each in two folders, and one
/// picture of every bad kind.
fn packages(pictures: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("usr/share/openclipart");
    for category in ["food/fruit", "shapes/arrows"] {
        for kind in ["png", "svg"] {
            fs::create_dir_all(root.join(kind).join(category)).unwrap();
        }
        for index in 0..pictures {
            let name = format!("{category}/{index:03}");
            let noise = Sha256::digest(&name);
            let image = RgbImage::from_fn(40, 48, |x, y| {
                let tile = usize::try_from(x / 10 + y / 12 * 4).unwrap();
                Rgb([noise[tile], noise[tile + 16], noise[tile]])
            });
            image.save(root.join("png").join(format!("{name}.png"))).unwrap();
            let svg = format!(
                "<svg><rdf:RDF><cc:Work><dc:title>{name}</dc:title></cc:Work></rdf:RDF></svg>"
            );
            fs::write(root.join("svg").join(format!("{name}.svg")), svg).unwrap();
        }
    }
    fs::write(root.join("png/food/fruit/zz_cut.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    RgbImage::new(1, 1).save(root.join("png/food/fruit/zz_dot.png")).unwrap();
    folder
}

fn conversion(input: &Path) -> Conversion {
    let class = |folder: &str, name: &str| Class { folder: folder.into(), name: name.into() };
    Conversion {
        listing: listing::list(input).unwrap(),
        seed: 7,
        classes: vec![class("food/fruit", "a fruit"), class("shapes/arrows", "an arrow")],
        templates: vec!["clip art of {c}.".into()],
        threads: 2,
    }
}

fn members(tar: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(tar).unwrap());
    let read = |entry: io::Result<tar::Entry<'_, File>>| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn keys(tar: &Path, extension: &str) -> BTreeSet<String> {
    members(tar).keys().filter_map(|it| it.strip_suffix(extension)).map(str::to_owned).collect()
}

#[test]
fn every_picture_is_in_training_or_held_out_or_on_the_list() {
    let (input, output) = (packages(150), tempfile::tempdir().unwrap());
    let folder = output.path().join("clipart");
    let manifest = write(&conversion(input.path()), &folder).unwrap();

    let train = keys(&folder.join("train/000000.tar"), ".jpg");
    let held_out = keys(&folder.join("eval/classes/test/0.tar"), ".jpg");
    assert_eq!(train, keys(&folder.join("train/000000.tar"), ".json"));
    assert_eq!(held_out, keys(&folder.join("eval/retrieval/test/0.tar"), ".txt"));
    assert!(train.is_disjoint(&held_out));
    assert_eq!((train.len(), held_out.len()), (manifest.train_pairs, manifest.held_out_pictures));
    assert_eq!(train.len() + held_out.len() + manifest.unusable.len(), 302);
    assert_eq!(manifest.unusable_by_cause, BTreeMap::from([(Cause::Undecodable, 1)]));
    assert_eq!(manifest.unusable[0].path, "food/fruit/zz_cut");
    assert_eq!(manifest.captions.none, 1);
}

#[test]
fn a_pair_holds_its_captions_and_a_class_its_number() {
    let (input, output) = (packages(150), tempfile::tempdir().unwrap());
    let folder = output.path().join("clipart");
    write(&conversion(input.path()), &folder).unwrap();

    let train = members(&folder.join("train/000000.tar"));
    let texts: Vec<serde_json::Value> = train
        .iter()
        .filter(|(name, _)| name.ends_with(".json"))
        .map(|(_, text)| serde_json::from_slice(text).unwrap())
        .collect();
    for pair in &texts {
        let is_dot = pair["path"] == "food/fruit/zz_dot";
        let expected = if is_dot { vec![] } else { vec![pair["path"].clone()] };
        assert_eq!(pair["texts"], serde_json::Value::from(expected));
    }
    let retrieval = members(&folder.join("eval/retrieval/test/0.tar"));
    for (name, class) in members(&folder.join("eval/classes/test/0.tar")) {
        if let Some(key) = name.strip_suffix(".cls") {
            let is_arrow = retrieval[&format!("{key}.txt")].starts_with(b"shapes/arrows/");
            assert_eq!(class, if is_arrow { b"1" } else { b"0" });
        }
    }
    let names = fs::read_to_string(folder.join("eval/classes/classnames.txt")).unwrap();
    assert_eq!(names, "a fruit\nan arrow\n");
}

#[test]
fn the_same_input_gives_the_same_bytes_and_is_not_redone() {
    let (input, output) = (packages(150), tempfile::tempdir().unwrap());
    let (first, second) = (output.path().join("first"), output.path().join("second"));
    let manifest = write(&conversion(input.path()), &first).unwrap();
    let one_thread = Conversion { threads: 1, ..conversion(input.path()) };
    assert_eq!(write(&one_thread, &second).unwrap(), manifest);

    let made =
        |folder: &Path| fs::metadata(folder.join("manifest.json")).unwrap().modified().unwrap();
    let before = made(&first);
    write(&conversion(input.path()), &first).unwrap();
    assert_eq!(made(&first), before, "nothing was redone");
    fs::remove_file(first.join("train/000000.tar")).unwrap();
    write(&conversion(input.path()), &first).unwrap();
    assert!(first.join("train/000000.tar").exists(), "what was lost is made again");
    let left: Vec<_> =
        fs::read_dir(output.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!left.iter().any(|it| it.to_string_lossy().ends_with(".partial")), "{left:?}");
}

#[test]
fn classes_that_no_longer_match_leave_the_old_dataset_alone() {
    let (input, output) = (packages(150), tempfile::tempdir().unwrap());
    let folder = output.path().join("clipart");
    write(&conversion(input.path()), &folder).unwrap();
    let mut changed = conversion(input.path());
    changed.classes.pop();
    let error = format!("{:#}", write(&changed, &folder).unwrap_err());
    assert!(error.contains("shapes/arrows has"), "{error}");
    assert!(folder.join("manifest.json").exists());
}
