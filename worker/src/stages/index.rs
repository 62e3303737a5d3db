//! The index job: lists the pairs of one input tar.

use std::fs::File;
use std::io;
use std::path::Path;

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_pairs::cause::{Cause, Place, Unusable};
use clade_pairs::index::IndexWriter;
use clade_pairs::scan::{Scan, ScanOptions, scan};
use clade_pairs::source::{Source, input_error};
use clade_store::{InputTar, Inputs, Part, StoreError, keys};
use serde::{Deserialize, Serialize};

use super::commit::{CODE_VERSION, Desk, JobManifest, spec_digest};
use crate::context::{Context, Counts, Ending};

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
    let table = context.scratch.join(TABLE);
    let scanned = scan_into(context, input, &table)?;
    let pairs = u32::try_from(scanned.pairs).map_err(|_| Failure::Data {
        message: format!("input tar {} holds more than 4 billion pairs", input.uri),
    })?;
    let mut counts = Counts::from([("pairs".to_owned(), u64::from(pairs))]);
    scanned.unusable.count_into(&mut counts);
    for (cause, listed) in scanned.unusable.by_cause() {
        let (tar, count) = (&input.uri, listed.count);
        let first = listed.places.first().map(ToString::to_string);
        tracing::warn!(tar, count, first, "unusable: {}", cause.name());
    }
    context.reporter.progress(u64::from(pairs), u64::from(pairs), None);
    let index = desk.upload(&table, TABLE)?;
    std::fs::remove_file(&table).map_err(|error| disk_error(&table, error))?;
    desk.commit(&IndexManifest {
        tar: input.uri.clone(),
        bytes: scanned.bytes,
        sha256: scanned.sha256,
        index,
        index_key: desk.key(TABLE),
        pairs,
        unusable: scanned.unusable,
        seed: context.spec.spec.seed,
        spec: spec_digest(context)?,
        code_version: CODE_VERSION.to_owned(),
        counts,
    })
}

/// Scans one tar; its usable pairs go to the table.
fn scan_into(context: &Context, input: &InputTar, table: &Path) -> Result<Scan, Ending> {
    let source = Source::open_input(&input.uri, &context.runtime)?;
    let before = source.stamp()?;
    let file = File::create(table).map_err(|error| disk_error(table, error))?;
    let mut index = IndexWriter::new(io::BufWriter::new(file)).map_err(Failure::from)?;
    // Kept apart from the tar's own errors: they mean something else.
    let mut refused = None;
    let rows = |row| {
        index.push(row).map_err(|error| {
            refused = Some(error);
            io::Error::other("the index cannot be written")
        })
    };
    let options = ScanOptions::new(context.spec.spec.dataset.max_pixels.0);
    let scanned = scan(source.stream()?, &input.uri, options, rows, |pairs, bytes| {
        // How many pairs there are is known at the end; until then the bytes tell.
        let total = u128::from(pairs) * u128::from(input.bytes) / u128::from(bytes.max(1));
        let total = u64::try_from(total).unwrap_or(u64::MAX).max(pairs);
        context.reporter.progress(pairs, total, None);
        !context.is_stopping()
    });
    if let Some(error) = refused {
        return Err(Failure::from(error).into());
    }
    let scanned = scanned.map_err(|error| input_error(Path::new(&input.uri), error))?;
    let mut scanned = scanned.ok_or(Ending::Stopped)?;
    if source.stamp()? != before {
        let place = Place { key: None, tar: input.uri.clone(), offset: scanned.bytes };
        scanned.unusable.add(Cause::ChangedTar, place);
    }
    let file = index.finish().map_err(Failure::from)?;
    file.into_inner().map_err(|error| disk_error(table, error.into_error()))?;
    Ok(scanned)
}

fn disk_error(path: &Path, error: io::Error) -> Failure {
    StoreError::from_io(path.display().to_string(), error).into()
}

fn input(inputs: &Inputs, part: u32) -> Result<&InputTar, Failure> {
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
