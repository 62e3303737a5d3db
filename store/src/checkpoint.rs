//! Checkpoints: tensors plus a manifest, which exist only if the manifest does.
//!
//! The ranks upload the parts first; [`commit`] then creates the manifest. Its folder holds the
//! incarnation, so a superseded gang writes only where nobody will look. Readers prove digests.

use std::collections::BTreeSet;
use std::path::Path;

use clade_core::ids::{CheckpointRef, Digest, Incarnation, ModelId, RunName, Step};
use serde::{Deserialize, Serialize};

use crate::digest::{Hashing, digest};
use crate::error::StoreError;
use crate::keys;
use crate::store::{Store, decode, encode};
use crate::transfer::Part;

/// What a checkpoint consists of, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointManifest {
    pub run: RunName,
    pub model: ModelId,
    pub incarnation: Incarnation,
    pub step: Step,
    /// Pairs consumed since the first step of this model's own stream.
    pub cursor: u64,
    /// Files beside the manifest.
    pub parts: Vec<Part>,
    /// The checkpoint this one's gang went on from.
    #[serde(default)]
    pub parent: Option<CheckpointRef>,
    pub seed: u64,
    pub world_size: u32,
    /// What else decides a step's bits: threads, instructions, the order of sums. For its writer to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<serde_json::Value>,
    /// Digest of the data manifest.
    pub data: Digest,
    /// Digest of the run's `spec.json`.
    pub spec: Digest,
    pub code_version: String,
}

impl CheckpointManifest {
    fn key(&self) -> String {
        let folder = keys::step(&self.run, self.model, self.incarnation, self.step);
        format!("{folder}/manifest.json")
    }
}

/// Makes a checkpoint exist. Its parts must be in place.
///
/// Repeating a commit whose answer was lost gives the same answer.
pub async fn commit(
    store: &Store,
    run: &RunName,
    manifest: &CheckpointManifest,
) -> Result<CheckpointRef, StoreError> {
    let key = manifest.key();
    if manifest.run != *run {
        let reason = format!("it names run `{}`", manifest.run);
        return Err(StoreError::Malformed { key, reason });
    }
    let bytes = encode(&key, manifest)?;
    let digest = match store.put_new(&key, bytes.clone()).await {
        Ok(digest) => digest,
        Err(StoreError::AlreadyExists { .. }) if store.get(&key).await? == bytes => digest(&bytes),
        Err(error) => return Err(error),
    };
    Ok(CheckpointRef {
        model: manifest.model,
        incarnation: manifest.incarnation,
        step: manifest.step,
        manifest: digest,
    })
}

/// The newest sound checkpoint that one gang left: its manifest parses and names itself, and
/// every part is there with its size. An unsound one is passed over for the next older.
pub async fn newest_candidate(
    store: &Store,
    run: &RunName,
    model: ModelId,
    incarnation: Incarnation,
) -> Result<Option<CheckpointRef>, StoreError> {
    for step in steps(store, run, model, incarnation).await? {
        match inspect(store, run, model, incarnation, step).await {
            Ok(found) => return Ok(Some(found)),
            Err(error) if error.is_bad_artefact() => (),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// One checkpoint of a model's own history, as its manifest tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub at: CheckpointRef,
    /// Pairs consumed since the first step of the model's own stream.
    pub cursor: u64,
}

/// The checkpoints in the store that `model`'s newest one descends from, and it, oldest first.
///
/// What a superseded gang left beyond the point where its successor went on is no part of it.
pub async fn history(
    store: &Store,
    run: &RunName,
    model: ModelId,
) -> Result<Vec<History>, StoreError> {
    let folder = keys::model(run, model);
    let mut gangs = BTreeSet::new();
    for entry in store.list(&folder).await? {
        let gang = entry.key.strip_prefix(&folder).and_then(|key| key.strip_prefix("/gang-"));
        gangs.extend(gang.and_then(|gang| gang.split('/').next()?.parse().ok()).map(Incarnation));
    }
    let mut found = Vec::new();
    // Up to which step an older gang's checkpoints count, once a newer one has told.
    let mut until: Option<CheckpointRef> = None;
    for gang in gangs.into_iter().rev() {
        if until.as_ref().is_some_and(|until| until.model != model || until.incarnation < gang) {
            continue;
        }
        let last = until.as_ref().map(|until| until.step);
        let mut parent = None;
        for step in steps(store, run, model, gang).await? {
            if last.is_some_and(|last| step > last) {
                continue;
            }
            let at = match inspect(store, run, model, gang, step).await {
                Ok(at) => at,
                Err(error) if error.is_bad_artefact() => continue,
                Err(error) => return Err(error),
            };
            let manifest = read(store, run, &at).await?;
            parent = manifest.parent;
            found.push(History { at, cursor: manifest.cursor });
        }
        until = parent.or(until);
    }
    found.reverse();
    Ok(found)
}

/// Steps of one gang's manifests, newest first.
async fn steps(
    store: &Store,
    run: &RunName,
    model: ModelId,
    incarnation: Incarnation,
) -> Result<Vec<Step>, StoreError> {
    let folder = keys::gang(run, model, incarnation);
    let mut steps: Vec<Step> = store
        .list(&folder)
        .await?
        .iter()
        .filter_map(|entry| {
            let name = entry.key.strip_prefix(&folder)?.strip_prefix("/step-")?;
            name.strip_suffix("/manifest.json")?.parse().ok().map(Step)
        })
        .collect();
    steps.sort_by(|a, b| b.cmp(a));
    Ok(steps)
}

/// Judges one checkpoint without reading its tensors.
async fn inspect(
    store: &Store,
    run: &RunName,
    model: ModelId,
    incarnation: Incarnation,
    step: Step,
) -> Result<CheckpointRef, StoreError> {
    let folder = keys::step(run, model, incarnation, step);
    let key = format!("{folder}/manifest.json");
    let (manifest, digest) = store.get_manifest::<CheckpointManifest>(&key).await?;
    let malformed = |reason: String| StoreError::Malformed { key: key.clone(), reason };
    if manifest.key() != key {
        return Err(malformed("it names another checkpoint".to_owned()));
    }
    for part in &manifest.parts {
        let found = store.size(&format!("{folder}/{}", part.name)).await?;
        if found != Some(part.bytes) {
            let found = found.map_or("is missing".to_owned(), |bytes| format!("has {bytes} bytes"));
            return Err(malformed(format!("part {} {found}, not {}", part.name, part.bytes)));
        }
    }
    Ok(CheckpointRef { model, incarnation, step, manifest: digest })
}

/// Reads a checkpoint's manifest and proves it.
pub async fn read(
    store: &Store,
    run: &RunName,
    at: &CheckpointRef,
) -> Result<CheckpointManifest, StoreError> {
    let key = keys::checkpoint_manifest(run, at);
    let bytes = store.get_verified(&key, &at.manifest).await?;
    let manifest: CheckpointManifest = decode(&key, &bytes)?;
    if manifest.key() == key {
        Ok(manifest)
    } else {
        Err(StoreError::Malformed { key, reason: "it names another checkpoint".to_owned() })
    }
}

/// Copies a checkpoint's parts into the folder `into`, and proves manifest and parts.
pub async fn fetch(
    store: &Store,
    run: &RunName,
    at: &CheckpointRef,
    into: &Path,
) -> Result<CheckpointManifest, StoreError> {
    let manifest = read(store, run, at).await?;
    for part in &manifest.parts {
        store.download(&self::part(run, at, part)?, &into.join(&part.name), &part.sha256).await?;
    }
    Ok(manifest)
}

/// Where a part of a checkpoint lies.
///
/// # Errors
///
/// If its name is no plain file name.
pub fn part(run: &RunName, at: &CheckpointRef, part: &Part) -> Result<String, StoreError> {
    let key = format!("{}/{}", keys::checkpoint(run, at), part.name);
    if part.name.contains('/') || part.name == ".." {
        let reason = "a part's name must be a plain file name".to_owned();
        return Err(StoreError::Malformed { key, reason });
    }
    Ok(key)
}

/// Whether a file holds what a part is to hold.
pub fn is_sound(file: &Path, part: &Part) -> Result<bool, StoreError> {
    let failed = |error| StoreError::from_io(file.display().to_string(), error);
    let mut found = Hashing::new(std::io::sink());
    let mut file = std::fs::File::open(file).map_err(failed)?;
    std::io::copy(&mut file, &mut found).map_err(failed)?;
    Ok(found.finish().2 == part.sha256)
}

/// Removes a checkpoint, its manifest first.
pub async fn remove(store: &Store, run: &RunName, at: &CheckpointRef) -> Result<(), StoreError> {
    store.delete(&keys::checkpoint_manifest(run, at)).await?;
    store.delete_prefix(&keys::checkpoint(run, at)).await
}

#[cfg(test)]
mod tests;
