//! The shard job: rewrites the pairs of a group of tars into per-expert tars.
//!
//! Each usable pair is written once, its picture's bytes as they were; pairs that lost their key to
//! another tar and unusable ones are not written. Memory holds one picture and the index rows of
//! the open shards; the tars grow in scratch files.

mod writer;

use std::os::unix::fs::FileExt;
use std::path::Path;

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_store::{DataManifest, DataShard, StoreError};
use serde::{Deserialize, Serialize};

use super::assign::read_assignments;
use super::cluster::read_router;
use super::commit::{self, CODE_VERSION, Desk, JobManifest};
use super::embed::{Table, TablesManifest};
use crate::context::{Context, Counts, Ending};
use crate::data::loader::indexes::read_index;
use crate::data::shelf::open_input;
use writer::Writer;

/// A shard is closed once it has reached this size.
const TARGET_BYTES: u64 = 256 << 20;

/// The shards one job made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShardManifest {
    pub(crate) pairs: u64,
    /// By expert.
    pub(crate) experts: Vec<Vec<DataShard>>,
    pub(crate) inputs: Vec<Digest>,
    pub(crate) seed: u64,
    pub(crate) code_version: String,
    pub(crate) counts: Counts,
}

impl JobManifest for ShardManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Rewrites the group `part`.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    run_with_target(context, part, TARGET_BYTES)
}

pub(crate) fn run_with_target(context: &Context, part: u32, target: u64) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Shard, part);
    if let Some(counts) = desk.done::<ShardManifest>()? {
        return Ok(counts);
    }
    let (router, router_digest) = read_router(context)?;
    let (catalogue, catalogue_digest) = commit::read::<DataManifest>(context, Stage::Catalog, 0)?;
    let (assigned, assigned_digest) = commit::read::<TablesManifest>(context, Stage::Assign, part)?;
    let experts = context.spec.spec.clusters.experts;
    let mut writers: Vec<Writer<'_>> =
        (0..experts).map(|expert| Writer::new(&desk, expert, target)).collect();
    let total = assigned.tables.iter().map(|table| u64::from(table.rows)).sum();
    let mut done = 0;
    for table in &assigned.tables {
        let shard = &catalogue.shards[table.tar as usize];
        rewrite(context, shard, table, &router.fine_to_expert, &mut writers, |pairs| {
            context.reporter.progress(done + pairs, total, None);
        })?;
        done += u64::from(table.rows);
    }
    let experts = writers.into_iter().map(Writer::finish).collect::<Result<Vec<_>, Failure>>()?;

    let mut counts = Counts::from([("pairs".to_owned(), done)]);
    for (expert, shards) in experts.iter().enumerate() {
        let pairs = shards.iter().map(|shard| u64::from(shard.pairs)).sum();
        counts.insert(format!("pairs.expert-{expert}"), pairs);
    }
    desk.commit(&ShardManifest {
        pairs: done,
        experts,
        inputs: vec![catalogue_digest, router_digest, assigned_digest],
        seed: context.spec.spec.seed,
        code_version: CODE_VERSION.to_owned(),
        counts,
    })
}

/// Hands every pair of one input tar to its expert's writer.
fn rewrite(
    context: &Context,
    shard: &DataShard,
    table: &Table,
    fine_to_expert: &[u32],
    writers: &mut [Writer<'_>],
    mut progress: impl FnMut(u64),
) -> Result<(), Ending> {
    let rows = read_index(&context.store, &context.runtime, shard)?;
    let assignments = read_assignments(context, table)?;
    let mismatch = || Failure::Storage {
        message: format!("`{}` does not belong to `{}`", table.key, shard.index),
    };
    if rows.len() != assignments.len() {
        return Err(mismatch().into());
    }
    let file = open_input(Path::new(&shard.tar), shard.bytes)?;
    for (row, (key, fine)) in rows.into_iter().zip(assignments) {
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        if row.key != key {
            return Err(mismatch().into());
        }
        let writer = fine_to_expert
            .get(fine as usize)
            .and_then(|&expert| writers.get_mut(expert as usize))
            .ok_or_else(mismatch)?;
        let mut picture = vec![0; row.length as usize];
        file.read_exact_at(&mut picture, row.offset)
            .map_err(|error| Failure::from(StoreError::from_io(&shard.tar, error)))?;
        writer.add(row, &picture)?;
        progress(1);
    }
    Ok(())
}
