//! How a job's artefacts come to exist: files in the try's own folder, the manifest last.
//!
//! Two tries of one job may meet at the end. The first to create the manifest wins; the other
//! removes its files and succeeds with the winner's counts, since equal inputs give equal work.

use clade_core::ids::{Digest, Incarnation, Stage};
use clade_core::job::Failure;
use clade_store::{Part, StoreError, keys};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{Context, Counts, Ending};

/// A manifest whose existence says that a job is done.
pub(crate) trait JobManifest: Serialize + DeserializeOwned + Sync {
    fn counts(&self) -> &Counts;
    /// Which try's folder the files lie in.
    fn incarnation(&self) -> Incarnation;
}

/// The manifest of the job's part, if it is done already.
pub(crate) fn existing<M: JobManifest>(
    context: &Context,
    stage: Stage,
    part: u32,
) -> Result<Option<M>, Ending> {
    let key = keys::stage_manifest(&context.job.run, stage, part);
    match context.block_on(context.store.get_manifest::<M>(&key)) {
        Ok((manifest, _)) => Ok(Some(manifest)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(Failure::from(error).into()),
    }
}

/// Writes one file into the try's folder.
pub(crate) fn put(
    context: &Context,
    stage: Stage,
    part: u32,
    name: &str,
    bytes: &[u8],
) -> Result<Part, Ending> {
    let folder = keys::stage_try(&context.job.run, stage, part, context.job.incarnation);
    let key = format!("{folder}/{name}");
    let length = u64::try_from(bytes.len()).expect("a length fits in 64 bits");
    let sha256 = context
        .block_on(context.store.put(&key, bytes.to_vec()))
        .map_err(Failure::from)?;
    Ok(Part { name: name.to_owned(), bytes: length, sha256 })
}

/// Creates the manifest, and clears away what other tries left.
pub(crate) fn commit<M: JobManifest>(
    context: &Context,
    stage: Stage,
    part: u32,
    manifest: &M,
) -> Result<Counts, Ending> {
    let key = keys::stage_manifest(&context.job.run, stage, part);
    let (winner, counts) = match context.block_on(context.store.put_manifest(&key, manifest)) {
        Ok(_) => (manifest.incarnation(), manifest.counts().clone()),
        Err(StoreError::AlreadyExists { .. }) => {
            let (first, _) = context
                .block_on(context.store.get_manifest::<M>(&key))
                .map_err(Failure::from)?;
            (first.incarnation(), first.counts().clone())
        }
        Err(error) => return Err(Failure::from(error).into()),
    };
    remove_losers(context, stage, part, winner).map_err(Failure::from)?;
    Ok(counts)
}

/// Removes every try's folder but the winner's.
fn remove_losers(
    context: &Context,
    stage: Stage,
    part: u32,
    winner: Incarnation,
) -> Result<(), StoreError> {
    let folder = keys::stage_part(&context.job.run, stage, part);
    let mut tries: Vec<String> = context
        .block_on(context.store.list(&folder))?
        .iter()
        .filter_map(|entry| {
            let rest = entry.key.strip_prefix(&folder)?.strip_prefix('/')?;
            let (name, _) = rest.split_once('/')?;
            let number = name.strip_prefix("try-")?;
            (number != winner.to_string()).then(|| format!("{folder}/{name}"))
        })
        .collect();
    tries.dedup();
    tries.iter().try_for_each(|each| context.block_on(context.store.delete_prefix(each)))
}

/// Digest of the run document as it was understood.
pub(crate) fn spec_digest(context: &Context) -> Result<Digest, Ending> {
    let key = keys::spec(&context.job.run);
    let bytes = context.block_on(context.store.get(&key)).map_err(Failure::from)?;
    Ok(clade_store::digest(&bytes))
}
