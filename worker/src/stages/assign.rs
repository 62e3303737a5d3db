//! The assign job: the nearest fine centre of each pair of a group of tars.

use std::sync::Arc;

use arrow_array::{StringArray, UInt32Array};
use clade_core::ids::Stage;
use clade_core::job::Failure;
use clade_model::kmeans::{self, Points};

use super::cluster::read_router;
use super::commit::{self, CODE_VERSION, Desk};
use super::embed::{TablesManifest, put_table, read_embeddings};
use crate::context::{Context, Counts, Ending};
use clade_pairs::table::{self, TableError};

/// Assigns the group `part`.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Assign, part);
    if let Some(counts) = desk.done::<TablesManifest>()? {
        return Ok(counts);
    }
    let (router, router_digest) = read_router(context)?;
    let (embedded, embedded_digest) = commit::read::<TablesManifest>(context, Stage::Embed, part)?;
    let wrong =
        |error: kmeans::ClusterError| Failure::Config { message: format!("assignment: {error}") };
    let centres = || Points::new(&router.fine_centres, router.width).map_err(wrong);
    let total = embedded.tables.iter().map(|table| u64::from(table.rows)).sum();
    let mut done = 0;
    let mut tables = Vec::new();
    for source in &embedded.tables {
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        let found = read_embeddings(context, source)?;
        let fine = if found.keys.is_empty() {
            Vec::new()
        } else {
            let points = Points::new(&found.values, found.width).map_err(wrong)?;
            kmeans::assign(points, centres()?).map_err(wrong)?
        };
        let fine = fine.iter().map(|nearest| nearest.cluster).collect();
        let bytes = encode(&found.keys, fine).map_err(Failure::from)?;
        tables.push(put_table(&desk, source.tar, source.rows, bytes)?);
        done += u64::from(source.rows);
        context.reporter.progress(done, total, None);
    }
    desk.commit(&TablesManifest {
        tables,
        inputs: vec![router_digest, embedded_digest],
        encoder: None,
        seed: context.spec.spec.seed,
        code_version: CODE_VERSION.to_owned(),
        counts: Counts::from([("pairs".to_owned(), done)]),
    })
}

fn encode(keys: &[String], fine: Vec<u32>) -> Result<Vec<u8>, TableError> {
    table::write(vec![
        ("key", Arc::new(StringArray::from_iter_values(keys))),
        ("fine", Arc::new(UInt32Array::from(fine))),
    ])
}
