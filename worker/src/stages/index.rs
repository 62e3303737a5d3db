//! The index job: lists the pairs of one input tar.

use std::path::Path;

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_store::{Inputs, Part, keys};
use serde::{Deserialize, Serialize};

use super::commit::{CODE_VERSION, Desk, JobManifest, spec_digest};
use crate::context::{Context, Counts, Ending};
use crate::data::cause::Unusable;
use crate::data::index;
use crate::data::scan::scan;
use crate::data::shelf::input_error;

const TABLE: &str = "index.parquet";

/// What one input tar holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexManifest {
    pub(crate) tar: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: Digest,
    /// The table of usable pairs.
    pub(crate) index: Part,
    /// Its store key.
    pub(crate) index_key: String,
    pub(crate) pairs: u32,
    pub(crate) unusable: Unusable,
    pub(crate) seed: u64,
    pub(crate) spec: Digest,
    pub(crate) code_version: String,
    pub(crate) counts: Counts,
}

impl JobManifest for IndexManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Reads input tar `part` from end to end.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Index, part);
    if let Some(counts) = desk.done::<IndexManifest>()? {
        return Ok(counts);
    }
    let input = input(&context.inputs, part)?;
    let path = Path::new(&input.uri);
    let max_pixels = context.spec.spec.dataset.max_pixels.0;
    let scanned = scan(path, max_pixels, |pairs, bytes| {
        // How many pairs there are is known at the end; until then the bytes tell.
        let total = u128::from(pairs) * u128::from(input.bytes) / u128::from(bytes.max(1));
        let total = u64::try_from(total).unwrap_or(u64::MAX).max(pairs);
        context.reporter.progress(pairs, total, None);
        !context.is_stopping()
    })
    .map_err(|error| input_error(path, error))?
    .ok_or(Ending::Stopped)?;

    let pairs = u32::try_from(scanned.rows.len()).map_err(|_| Failure::Data {
        message: format!("input tar {} holds more than 4 billion pairs", input.uri),
    })?;
    let table = index::encode(&scanned.rows).map_err(Failure::from)?;
    let mut counts = Counts::from([("pairs".to_owned(), u64::from(pairs))]);
    scanned.unusable.count_into(&mut counts);
    for (cause, listed) in scanned.unusable.by_cause() {
        let (tar, count, first) = (&input.uri, listed.count, listed.keys.first());
        tracing::warn!(tar, count, ?first, "unusable: {}", cause.name());
    }
    context.reporter.progress(u64::from(pairs), u64::from(pairs), None);
    desk.commit(&IndexManifest {
        tar: input.uri.clone(),
        bytes: scanned.bytes,
        sha256: scanned.sha256,
        index: desk.put(TABLE, table)?,
        index_key: desk.key(TABLE),
        pairs,
        unusable: scanned.unusable,
        seed: context.spec.spec.seed,
        spec: spec_digest(context)?,
        code_version: CODE_VERSION.to_owned(),
        counts,
    })
}

fn input(inputs: &Inputs, part: u32) -> Result<&clade_store::InputTar, Failure> {
    usize::try_from(part).ok().and_then(|part| inputs.tars.get(part)).ok_or_else(|| {
        let listed = inputs.tars.len();
        Failure::Config {
            message: format!("the run lists {listed} input tars, so no index.{part}"),
        }
    })
}

/// Where to look for what a run's index jobs found.
pub(crate) fn folder(context: &Context) -> String {
    format!("{}/{}", keys::run(&context.job.run), Stage::Index)
}
