//! How a job's artefacts come to exist: files in the try's own folder, the manifest last.
//!
//! Two tries of one job may meet at the end. The first to create the manifest wins; the other
//! removes its files and succeeds with the winner's counts, since equal inputs give equal work.

use std::path::Path;

use clade_core::ids::{Digest, Incarnation, Stage};
use clade_core::job::Failure;
use clade_store::{DataManifest, Part, StoreError, digest, keys};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{Context, Counts, Ending};

/// Written into every manifest.
pub(crate) const CODE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A manifest whose existence says that a job is done.
pub(crate) trait JobManifest: Serialize + DeserializeOwned + PartialEq + Sync {
    fn counts(&self) -> &Counts;
}

impl JobManifest for DataManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// One job's place in the store.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) context: &'a Context,
    pub(crate) stage: Stage,
    pub(crate) part: u32,
}

impl<'a> Desk<'a> {
    pub(crate) const fn new(context: &'a Context, stage: Stage, part: u32) -> Self {
        Self { context, stage, part }
    }

    /// The key of one of this try's files.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.try_folder(self.context.job.incarnation))
    }

    fn try_folder(&self, incarnation: Incarnation) -> String {
        keys::stage_try(&self.context.job.run, self.stage, self.part, incarnation)
    }

    fn manifest_key(&self) -> String {
        keys::stage_manifest(&self.context.job.run, self.stage, self.part)
    }

    /// The counts of the job, if it is done already.
    pub(crate) fn done<M: JobManifest>(&self) -> Result<Option<Counts>, Failure> {
        let Self { context, .. } = self;
        match context.block_on(context.store.get_manifest::<M>(&self.manifest_key())) {
            Ok((manifest, _)) => Ok(Some(manifest.counts().clone())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one file into the try's folder.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<Part, Failure> {
        let length = bytes.len() as u64;
        let store = &self.context.store;
        let sha256 = self.context.block_on(store.put(&self.key(name), bytes))?;
        Ok(Part { name: name.to_owned(), bytes: length, sha256 })
    }

    /// Copies a file into the try's folder.
    pub(crate) fn upload(&self, file: &Path, name: &str) -> Result<Part, Failure> {
        Ok(self.context.block_on(self.context.store.upload(file, &self.key(name)))?)
    }

    /// Creates the manifest, and clears away what other tries left.
    pub(crate) fn commit<M: JobManifest>(&self, manifest: &M) -> Result<Counts, Ending> {
        Ok(self.try_commit(manifest)?)
    }

    fn try_commit<M: JobManifest>(&self, manifest: &M) -> Result<Counts, Failure> {
        let store = &self.context.store;
        let own = self.context.job.incarnation;
        let key = self.manifest_key();
        match self.context.block_on(store.put_manifest(&key, manifest)) {
            Ok(_) => (),
            Err(StoreError::AlreadyExists { .. }) => {
                let (first, _) = self.context.block_on(store.get_manifest::<M>(&key))?;
                // Equal manifests name the same files: then they may well be this try's.
                if first != *manifest {
                    self.context.block_on(store.delete_prefix(&self.try_folder(own)))?;
                    return Ok(first.counts().clone());
                }
            }
            Err(error) => return Err(error.into()),
        }
        for other in (0..own.0).map(Incarnation) {
            // The work is committed: what cannot be removed is rubbish, and no failure.
            let folder = self.try_folder(other);
            if let Err(error) = self.context.block_on(store.delete_prefix(&folder)) {
                tracing::warn!(folder, %error, "an earlier try's files are left behind");
            }
        }
        Ok(manifest.counts().clone())
    }
}

/// The manifest of a finished job, and its digest.
pub(crate) fn read<M: JobManifest>(
    context: &Context,
    stage: Stage,
    part: u32,
) -> Result<(M, Digest), Failure> {
    let key = keys::stage_manifest(&context.job.run, stage, part);
    Ok(context.block_on(context.store.get_manifest(&key))?)
}

/// Digest of the run document as it was understood.
pub(crate) fn spec_digest(context: &Context) -> Result<Digest, Failure> {
    let bytes = context.block_on(context.store.get(&keys::spec(&context.job.run)))?;
    Ok(digest(&bytes))
}
