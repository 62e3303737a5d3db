//! The fuzzer's corpus, and a few thousand seeded changes to it, in every gate run.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use clade_core::order::Random;
use clade_pairs::fixture::{jpeg, jpeg_that_claims, member, pair, png, tar};
use clade_pairs::trial;

/// Changed copies made of each file.
const CHANGES: u64 = 150;
const SEED: u64 = 20_261_125;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

/// Changes a few bytes, cuts, doubles or moves a part: what a bad disk and a bad writer do.
fn change(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let length = changed.len() as u64;
        let at = usize::try_from(random.below(length + 1)).unwrap();
        let span = usize::try_from(random.below(700)).unwrap();
        let end = (at + span).min(changed.len());
        match random.below(6) {
            0 => changed.truncate(at),
            1 => drop(changed.drain(at..end)),
            2 => {
                let part = changed[at..end].to_vec();
                changed.splice(at..at, part);
            }
            3 => changed[at..end].fill(0),
            _ if at < changed.len() => {
                changed[at] = u8::try_from(random.below(256)).unwrap();
            }
            _ => changed.push(0xff),
        }
    }
    changed
}

fn holds(name: &str, check: fn(&[u8])) {
    eprintln!("seed {SEED}");
    let files = corpus(name);
    assert!(files.len() >= 3, "{} files of {name}", files.len());
    let mut random = Random::new(SEED);
    for (path, bytes) in files {
        check(&bytes);
        for number in 0..CHANGES {
            let changed = change(&bytes, &mut random);
            let checked = std::panic::catch_unwind(|| check(&changed));
            assert!(checked.is_ok(), "change {number} of {}: seed {SEED}", path.display());
        }
    }
}

#[test]
fn whatever_becomes_of_a_tar_its_scan_ends_with_sound_rows_and_a_list() {
    holds("tar", trial::tar);
}

#[test]
fn whatever_becomes_of_an_index_it_is_read_or_refused() {
    holds("index", trial::index);
}

/// Writes the first files of the corpus: `CLADE_CORPUS=1 cargo test -p clade-pairs --test corpus`.
#[test]
fn the_first_files_of_the_corpus_are_the_ones_made_here() {
    let many = (0..5).flat_map(|number| pair(&format!("{number}"), "one of many")).collect();
    let long = "long/".repeat(50);
    let tars = [
        ("pairs", many),
        ("long-names", pair(&format!("{long}k"), "a caption")),
        (
            "json",
            vec![
                member("k.json", r#"{"caption": "one", "texts": ["two", ["en", "three"]]}"#),
                member("k.png", png(8, 8, "k")),
                member("l.jpg", jpeg(8, 8, "l")),
                member("l.json", r#"{"texts": [["#),
            ],
        ),
        (
            "bad",
            vec![
                member("../up.jpg", jpeg(8, 8, "u")),
                member("bomb.jpg", jpeg_that_claims(60_000, 60_000)),
                member("bomb.txt", "a bomb"),
                member("empty.jpg", ""),
                member("empty.txt", ""),
            ],
        ),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, members) in tars {
        let made = made(&members);
        for (kind, bytes) in [("tar", &made.0), ("index", &made.1)] {
            let path = folder.join(kind).join(name);
            if std::env::var_os("CLADE_CORPUS").is_some() {
                std::fs::write(&path, bytes).unwrap();
            }
            let found = std::fs::read(&path).unwrap_or_default();
            assert!(
                found == *bytes,
                "{} differs: set CLADE_CORPUS to make it anew",
                path.display()
            );
        }
    }
}

/// A tar and its index.
fn made(members: &[clade_pairs::fixture::Member]) -> (Vec<u8>, Vec<u8>) {
    use clade_pairs::scan::{ScanOptions, scan};
    // A name that leads out of its folder is written as it stands, as a hostile writer would.
    let safe: Vec<_> =
        members.iter().map(|(name, it)| (name.replace("..", "__"), it.clone())).collect();
    let mut tar = tar(&safe);
    if let Some(at) = tar.windows(3).position(|name| name == b"__/") {
        tar[at..at + 2].copy_from_slice(b"..");
        let sum: u32 = (at..at + 512)
            .map(|it| u32::from(if (148..156).contains(&(it - at)) { b' ' } else { tar[it] }))
            .sum();
        tar[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut rows = Vec::new();
    let keep = |row| {
        rows.push(row);
        Ok(())
    };
    scan(&*tar, "it", ScanOptions::new(1 << 20), keep, |_, _| true).unwrap().unwrap();
    (tar, clade_pairs::index::encode(&rows).unwrap())
}
