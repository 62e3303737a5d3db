//! The shard job: rewrites the pairs of a group of tars into per-expert tars.
//!
//! The input is read once, front to back, and each usable pair is written once, its picture's bytes as
//! they were; pairs that lost their key to another tar and unusable ones are not written. A picture that
//! is no longer the one indexed is counted, listed and left out. Reading, putting tars together and
//! writing go on side by side. Memory holds a few megabytes of pictures, the unwritten end of each open
//! tar, and the index rows of the open shards.
//!
//! With `training.oocRatio` a pair whose pass is among the planned ones is written a second time, into
//! the one pool of foreign pairs that all experts share.

mod pool;
mod pump;
mod writer;

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_pairs::cause::{Cause, Place, Unusable};
use clade_pairs::index::{Foreign, checksum};
use clade_store::{DataManifest, DataShard};
use serde::{Deserialize, Serialize};

use super::cluster::read_router;
use super::commit::{self, CODE_VERSION, Desk, JobManifest};
use super::embed::{Table, TablesManifest};
use crate::context::{Context, Counts, Ending};
pub(crate) use pool::{Pool, PoolShard};
use pump::{Item, pictures};
use writer::{Writer, Written};

/// A shard is closed once it has reached this size.
const TARGET_BYTES: u64 = 256 << 20;

/// The shards one job made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShardManifest {
    /// Pairs written to an expert's shards.
    pub(crate) pairs: u64,
    /// By expert.
    pub(crate) experts: Vec<Vec<DataShard>>,
    /// What this job adds to the pool of foreign pairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pool: Vec<PoolShard>,
    /// Pairs of the catalogue that changed since they were indexed.
    #[serde(default)]
    pub(crate) unusable: Unusable,
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
    let pool = Pool::planned(&context.spec, catalogue.pairs);
    let mut sorter = Sorter {
        desk: &desk,
        fine_to_expert: &router.fine_to_expert,
        experts: (0..experts)
            .map(|expert| Writer::new(&desk, format!("expert-{expert}"), target, false))
            .collect(),
        pool: pool.map(|pool| (pool, Writer::new(&desk, "foreign".to_owned(), target, true))),
        unusable: Unusable::default(),
        done: 0,
        total: assigned.tables.iter().map(|table| u64::from(table.rows)).sum(),
    };
    let sorted = assigned
        .tables
        .iter()
        .try_for_each(|table| sorter.rewrite(&catalogue.shards[table.tar as usize], table));
    if let Err(ending) = sorted {
        let Sorter { experts, pool, .. } = sorter;
        experts.into_iter().chain(pool.map(|(_, writer)| writer)).for_each(Writer::give_up);
        return Err(ending);
    }
    let Sorter { experts: writers, pool, unusable, done, .. } = sorter;
    let finish = |writer: Writer<'_>| -> Result<Vec<Written>, Failure> { writer.finish() };
    let experts = writers.into_iter().map(finish).collect::<Result<Vec<_>, _>>()?;
    let pool = match pool {
        Some((pool, writer)) => pool.counted(finish(writer)?, experts.len()),
        None => Vec::new(),
    };
    let experts: Vec<Vec<DataShard>> = experts
        .into_iter()
        .map(|shards| shards.into_iter().map(|written| written.shard).collect())
        .collect();

    let pairs = done - unusable.total();
    let mut counts = Counts::from([("pairs".to_owned(), pairs)]);
    for (expert, shards) in experts.iter().enumerate() {
        let pairs = shards.iter().map(|shard| u64::from(shard.pairs)).sum();
        counts.insert(format!("pairs.expert-{expert}"), pairs);
    }
    if unusable.total() > 0 {
        unusable.count_into(&mut counts);
    }
    desk.commit(&ShardManifest {
        pairs,
        experts,
        pool,
        unusable,
        inputs: vec![catalogue_digest, router_digest, assigned_digest],
        seed: context.spec.spec.seed,
        code_version: CODE_VERSION.to_owned(),
        counts,
    })
}

/// Hands pairs to the writers of their experts.
struct Sorter<'a> {
    desk: &'a Desk<'a>,
    fine_to_expert: &'a [u32],
    experts: Vec<Writer<'a>>,
    pool: Option<(Pool, Writer<'a>)>,
    unusable: Unusable,
    /// Pairs dealt with, of `total`.
    done: u64,
    total: u64,
}

impl Sorter<'_> {
    /// Hands on every pair of one input tar.
    fn rewrite(&mut self, shard: &DataShard, table: &Table) -> Result<(), Ending> {
        pictures(self.desk.context, shard, table, |item, picture| self.take(shard, item, picture))
    }

    fn take(
        &mut self,
        shard: &DataShard,
        item: Item,
        picture: Option<&[u8]>,
    ) -> Result<(), Ending> {
        let context = self.desk.context;
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        self.done += 1;
        let Item { row, fine } = item;
        let expert = usize::try_from(fine)
            .ok()
            .and_then(|fine| self.fine_to_expert.get(fine))
            .copied()
            .filter(|&expert| (expert as usize) < self.experts.len())
            .ok_or_else(|| pump::mismatch(shard))?;
        let Some(picture) = picture.filter(|picture| checksum(picture) == row.checksum) else {
            let (key, tar, offset) = (row.key, shard.tar.clone(), row.offset);
            tracing::warn!(key, tar, offset, "the picture is not the one that was indexed");
            self.unusable.add(Cause::ChangedPair, Place { key: Some(key), tar, offset });
            return Ok(());
        };
        if let Some((pool, writer)) = &mut self.pool
            && let Some(pass) = pool.pass(&row.key)
        {
            writer.add(&row, picture, Some(Foreign { pass, owner: expert }))?;
        }
        self.experts[expert as usize].add(&row, picture, None)?;
        context.reporter.progress(self.done, self.total, None);
        Ok(())
    }
}
