//! The publish job: one immutable bundle, then one pointer flipped.
//!
//! A bundle's folder is named by the digest of its `manifest.json`, which lists every other file
//! with size and digest. It is built in the scratch folder first, since its name is known only
//! then; equal inputs give the same bundle under the same name, so doing it again is harmless.
//! Order: files, the bundle's manifest, the job's manifest, the pointer.

mod build;
mod provenance;

use std::fs::File;
use std::io;
use std::path::Path;

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_store::{Hashing, Part, StoreError, keys};
use serde::{Deserialize, Serialize};

use super::commit::{self, CODE_VERSION, Desk, JobManifest};
use super::evaluate::disk;
use crate::context::{Context, Counts, Ending};

/// Name of the file that lists all others.
const MANIFEST: &str = "manifest.json";
/// Counts up when a file of the bundle changes its meaning.
const FORMAT: u32 = 1;

/// Every file of a bundle but this list itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BundleManifest {
    pub(crate) format: u32,
    pub(crate) run: clade_core::ids::RunName,
    /// By path inside the bundle, in order.
    pub(crate) files: Vec<Part>,
}

/// What `bundle/current.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BundlePointer {
    /// Digest of the bundle's manifest, and the name of its folder.
    pub(crate) bundle: Digest,
    /// Store key of the folder.
    pub(crate) key: String,
}

/// Says that the bundle is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PublishManifest {
    pub(crate) bundle: Digest,
    /// Digests of the report's manifest.
    pub(crate) inputs: Vec<Digest>,
    pub(crate) seed: u64,
    pub(crate) spec: Digest,
    pub(crate) code_version: String,
    pub(crate) counts: Counts,
}

impl JobManifest for PublishManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Writes the bundle and points at it.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Publish, part);
    if let Some(counts) = desk.done::<PublishManifest>()? {
        // The try before may have died between its manifest and the pointer.
        flip(context)?;
        return Ok(counts);
    }
    let folder = context.scratch.join("bundle");
    let report = build::build(context, &folder)?;

    let mut files = Vec::new();
    list(&folder, &folder, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let manifest = BundleManifest { format: FORMAT, run: context.job.run.clone(), files };
    let mut bytes = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Failure::Storage { message: format!("{MANIFEST}: {error}") })?;
    bytes.push(b'\n');
    let bundle = clade_store::digest(&bytes);
    upload(context, &folder, &manifest, bundle)?;
    let key = format!("{}/{MANIFEST}", keys::bundle(&context.job.run, &bundle));
    match context.block_on(context.store.put_new(&key, bytes)) {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => (),
        Err(error) => return Err(Failure::from(error).into()),
    }

    let total = manifest.files.iter().map(|file| file.bytes).sum();
    let counts = Counts::from([
        ("files".to_owned(), manifest.files.len() as u64),
        ("bytes".to_owned(), total),
    ]);
    let manifest = PublishManifest {
        bundle,
        inputs: vec![report],
        seed: context.spec.spec.seed,
        spec: commit::spec_digest(context)?,
        code_version: CODE_VERSION.to_owned(),
        counts,
    };
    let counts = desk.commit(&manifest)?;
    flip(context)?;
    Ok(counts)
}

/// Points the run at the bundle that the job's manifest names; repeating it is harmless.
fn flip(context: &Context) -> Result<(), Ending> {
    let run = &context.job.run;
    let (PublishManifest { bundle, .. }, _) = commit::read(context, Stage::Publish, 0)?;
    let pointer = BundlePointer { bundle, key: keys::bundle(run, &bundle) };
    let mut bytes = serde_json::to_vec_pretty(&pointer)
        .map_err(|error| Failure::Storage { message: format!("bundle pointer: {error}") })?;
    bytes.push(b'\n');
    context
        .block_on(context.store.put(&keys::bundle_pointer(run), bytes))
        .map_err(Failure::from)?;
    Ok(())
}

/// Copies the built files into the store; what an earlier try left whole is not sent again.
fn upload(
    context: &Context,
    folder: &Path,
    manifest: &BundleManifest,
    bundle: Digest,
) -> Result<(), Ending> {
    let into = keys::bundle(&context.job.run, &bundle);
    let total = manifest.files.len() as u64;
    for (done, file) in (0..).zip(&manifest.files) {
        context.reporter.progress(done, total, None);
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        let key = format!("{into}/{}", file.name);
        let sent = context
            .block_on(context.store.upload(&folder.join(&file.name), &key))
            .map_err(Failure::from)?;
        if sent.sha256 != file.sha256 {
            let message = format!("`{key}` changed while it was sent");
            return Err(Failure::Storage { message }.into());
        }
    }
    context.reporter.progress(total, total, None);
    Ok(())
}

/// Every file below `folder`, named from `root`.
fn list(root: &Path, folder: &Path, files: &mut Vec<Part>) -> Result<(), Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| disk(folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| disk(folder, &error))?.path();
        if path.is_dir() {
            list(root, &path, files)?;
            continue;
        }
        let (bytes, sha256) = digest_file(&path)?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        files.push(Part { name, bytes, sha256 });
    }
    Ok(())
}

fn digest_file(path: &Path) -> Result<(u64, Digest), Failure> {
    let failed = |error: io::Error| disk(path, &error);
    let mut file = Hashing::new(File::open(path).map_err(failed)?);
    io::copy(&mut file, &mut io::sink()).map_err(failed)?;
    let (_, bytes, sha256) = file.finish();
    Ok((bytes, sha256))
}

#[cfg(test)]
mod tests;
