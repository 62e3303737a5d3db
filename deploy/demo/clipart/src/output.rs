//! The dataset on disk, whole or not at all.
//!
//! Everything is written to a folder beside the output, which takes its place by
//! rename. Invariant: a folder with a manifest is complete. Nothing is redone
//! whose manifest names the same inputs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::classes::{self, Class};
use crate::convert::{self, Conversion, Pictures, Usable};
use crate::fingerprint;
use crate::listing::hex;
use crate::manifest::{self, ClassCount, FileEntry, FoundCounts, Manifest};
use crate::split::{self, Split};

/// About this many pairs are in a training tar.
const PAIRS_PER_TAR: usize = 1000;

/// Converts into `folder`, or finds that this has been done.
pub(crate) fn write(conversion: &Conversion, folder: &Path) -> anyhow::Result<Manifest> {
    let inputs = digest(conversion);
    let _lock = lock(folder)?;
    if let Some(manifest) = Manifest::of_finished(folder, &inputs) {
        return Ok(manifest);
    }
    eprintln!(
        "clade-clipart: converting {} pictures with seed {}",
        conversion.listing.pictures.len(),
        conversion.seed
    );
    let pictures = convert::pictures(&conversion.listing, conversion.threads);
    let split = split::split(&pictures.usable, conversion.seed);

    let partial = beside(folder, ".partial");
    remove(&partial)?;
    let mut dataset = Dataset { root: partial.clone(), files: Vec::new() };
    let manifest = dataset
        .write(conversion, inputs, &pictures, &split)
        .with_context(|| format!("cannot write to {}", partial.display()))?;

    let old = beside(folder, ".old");
    remove(&old)?;
    if folder.exists() {
        fs::rename(folder, &old)?;
    }
    fs::rename(&partial, folder)?;
    remove(&old)?;
    Ok(manifest)
}

/// Of all that decides the dataset's content.
fn digest(conversion: &Conversion) -> String {
    let Conversion { listing, seed, classes, templates, threads: _ } = conversion;
    let all = format!(
        "{} {} {} {} {seed} {classes:?} {templates:?}",
        manifest::FORMAT,
        env!("CARGO_PKG_VERSION"),
        fingerprint::METHOD,
        listing.digest
    );
    hex(&Sha256::digest(all))
}

/// One conversion into a folder at a time; the next waits, and finds it done.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = beside(folder, ".lock");
    let create = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let file = File::create(&path)?;
        file.lock()?;
        io::Result::Ok(file)
    };
    create().with_context(|| format!("cannot lock {}", path.display()))
}

/// `data/clipart` -> `data/.clipart.partial`: the same file system, so a rename works.
fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}{suffix}"))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The `.json` member of a pair.
#[derive(Serialize)]
struct PairText<'a> {
    key: &'a str,
    texts: &'a [String],
    path: &'a str,
}

struct Dataset {
    root: PathBuf,
    files: Vec<FileEntry>,
}

impl Dataset {
    fn write(
        &mut self,
        conversion: &Conversion,
        inputs: String,
        pictures: &Pictures,
        split: &Split,
    ) -> anyhow::Result<Manifest> {
        let Conversion { listing, seed, classes, templates, threads: _ } = conversion;
        let Pictures { usable, unusable, captions } = pictures;
        let folders = classes::with_enough_held_out(usable, &split.held_out);
        classes::check(classes, &folders)?;

        self.training(usable, &split.train)?;
        let class_of = |index: usize| {
            let folder = classes::folder_of(&usable[index].name);
            classes.iter().position(|it| it.folder == folder)
        };
        let class_pictures = self.classes(usable, &split.held_out, classes, templates, class_of)?;
        let retrieval_pictures = self.retrieval(usable, &split.held_out)?;

        let mut unusable_by_cause = BTreeMap::new();
        for it in unusable {
            *unusable_by_cause.entry(it.cause).or_insert(0) += 1;
        }
        let manifest = Manifest {
            format: manifest::FORMAT,
            inputs,
            seed: *seed,
            fingerprint: format!(
                "{}; near is a distance of {}",
                fingerprint::METHOD,
                fingerprint::NEAR
            ),
            found: FoundCounts {
                pictures: listing.pictures.len(),
                links: listing.links,
                usable: usable.len(),
                padded: usable.iter().filter(|it| it.padded).count(),
            },
            unusable_by_cause,
            unusable: unusable.clone(),
            captions: *captions,
            near_duplicates: split.groups,
            train_pairs: split.train.len(),
            held_out_pictures: split.held_out.len(),
            class_pictures,
            retrieval_pictures,
            classes: class_counts(classes, &folders),
            files: std::mem::take(&mut self.files),
        };
        let mut text = serde_json::to_vec_pretty(&manifest)?;
        text.push(b'\n');
        fs::write(self.root.join(manifest::FILE_NAME), text)?;
        Ok(manifest)
    }

    fn training(&mut self, usable: &[Usable], train: &[usize]) -> anyhow::Result<()> {
        let tars = train.len().div_ceil(PAIRS_PER_TAR).max(1);
        for tar in 0..tars {
            // Even parts: no tar is a small rest.
            let part = &train[train.len() * tar / tars..train.len() * (tar + 1) / tars];
            let mut members = Vec::with_capacity(part.len() * 2);
            for &index in part {
                let Usable { key, name, jpeg, texts, .. } = &usable[index];
                let text = serde_json::to_vec(&PairText { key, texts, path: name })?;
                members.push((format!("{key}.jpg"), jpeg.clone()));
                members.push((format!("{key}.json"), text));
            }
            self.tar(&format!("train/{tar:06}.tar"), part.len(), &members)?;
        }
        Ok(())
    }

    fn classes(
        &mut self,
        usable: &[Usable],
        held_out: &[usize],
        classes: &[Class],
        templates: &[String],
        class_of: impl Fn(usize) -> Option<usize>,
    ) -> anyhow::Result<usize> {
        let mut members = Vec::new();
        for &index in held_out {
            if let Some(class) = class_of(index) {
                let Usable { key, jpeg, .. } = &usable[index];
                members.push((format!("{key}.jpg"), jpeg.clone()));
                members.push((format!("{key}.cls"), class.to_string().into_bytes()));
            }
        }
        let names: String = classes.iter().map(|it| format!("{}\n", it.name)).collect();
        let templates: String = templates.iter().map(|it| format!("{it}\n")).collect();
        self.file("eval/classes/classnames.txt", names.as_bytes(), None)?;
        self.file(
            "eval/classes/zeroshot_classification_templates.txt",
            templates.as_bytes(),
            None,
        )?;
        self.evaluation_set("eval/classes", "classification", &members)
    }

    fn retrieval(&mut self, usable: &[Usable], held_out: &[usize]) -> anyhow::Result<usize> {
        let mut members = Vec::new();
        for &index in held_out {
            let Usable { key, jpeg, texts, .. } = &usable[index];
            if !texts.is_empty() {
                members.push((format!("{key}.jpg"), jpeg.clone()));
                members.push((format!("{key}.txt"), texts.join("\n").into_bytes()));
            }
        }
        self.evaluation_set("eval/retrieval", "retrieval", &members)
    }

    fn evaluation_set(
        &mut self,
        folder: &str,
        kind: &str,
        members: &[(String, Vec<u8>)],
    ) -> anyhow::Result<usize> {
        let pictures = members.len() / 2;
        self.file(&format!("{folder}/dataset_type.txt"), format!("{kind}\n").as_bytes(), None)?;
        self.file(&format!("{folder}/test/nshards.txt"), b"1\n", None)?;
        self.tar(&format!("{folder}/test/0.tar"), pictures, members)?;
        Ok(pictures)
    }

    fn tar(
        &mut self,
        path: &str,
        pictures: usize,
        members: &[(String, Vec<u8>)],
    ) -> anyhow::Result<()> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(u64::try_from(bytes.len())?);
            header.set_mode(0o644);
            header.set_mtime(0);
            tar.append_data(&mut header, name, &bytes[..])?;
        }
        self.file(path, &tar.into_inner()?, Some(pictures))
    }

    fn file(&mut self, path: &str, bytes: &[u8], pictures: Option<usize>) -> anyhow::Result<()> {
        let target = self.root.join(path);
        fs::create_dir_all(target.parent().unwrap_or(&self.root))?;
        fs::write(&target, bytes)?;
        self.files.push(FileEntry {
            path: path.to_owned(),
            bytes: u64::try_from(bytes.len())?,
            sha256: hex(&Sha256::digest(bytes)),
            pictures,
        });
        Ok(())
    }
}

fn class_counts(classes: &[Class], folders: &BTreeMap<String, usize>) -> Vec<ClassCount> {
    let count = |Class { folder, name }: &Class| ClassCount {
        folder: folder.clone(),
        name: name.clone(),
        pictures: folders.get(folder).copied().unwrap_or(0),
    };
    classes.iter().map(count).collect()
}

#[cfg(test)]
mod tests;
