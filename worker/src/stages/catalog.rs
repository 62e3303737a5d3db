//! The catalog job: merges the indexes of all tars into the list of all usable pairs.
//!
//! A key belongs to the first tar that has it, in the order of the inputs; a tar that loses rows
//! gets an index of its own here. Too many unusable pairs end the run, with the list.

use std::collections::HashSet;

use clade_core::ids::Stage;
use clade_core::job::Failure;
use clade_pairs::cause::{Cause, Place, Unusable};
use clade_pairs::index::{Index, IndexWriter};
use clade_store::{DataManifest, DataShard, keys};
use xxhash_rust::xxh3::xxh3_128;

use super::commit::{self, CODE_VERSION, Desk};
use super::index::{self, IndexManifest};
use crate::context::{Context, Counts, Ending};

/// Merges every index of the run.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Catalog, part);
    if let Some(counts) = desk.done::<DataManifest>()? {
        return Ok(counts);
    }
    let tars = u32::try_from(context.inputs.tars.len()).unwrap_or(u32::MAX);
    let (mut shards, mut inputs) = (Vec::new(), Vec::new());
    let mut unusable = Unusable::default();
    // By 128-bit hash: keys of a large web crawl would not fit in memory.
    let mut known = HashSet::new();
    let mut lost = Lost::default();
    for tar in 0..tars {
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        let (manifest, digest) = commit::read::<IndexManifest>(context, Stage::Index, tar)?;
        shards.push(without_duplicates(&desk, tar, &manifest, &mut known, &mut unusable)?);
        lost.add(&manifest);
        inputs.push(digest);
        unusable.merge(&manifest.unusable);
        context.reporter.progress(known.len() as u64, known.len() as u64, None);
    }
    let pairs = shards.iter().map(|shard| u64::from(shard.pairs)).sum();
    let list = write_list(context, &unusable)?;
    judge(context, pairs, &unusable, lost.pairs(), &list)?;

    let mut counts =
        Counts::from([("pairs".to_owned(), pairs), ("tars".to_owned(), u64::from(tars))]);
    unusable.count_into(&mut counts);
    desk.commit(&DataManifest {
        pairs,
        shards,
        foreign: Vec::new(),
        inputs,
        seed: context.spec.spec.seed,
        code_version: CODE_VERSION.to_owned(),
        counts,
    })
}

/// The shard of one tar, less the pairs whose keys an earlier tar has.
fn without_duplicates(
    desk: &Desk<'_>,
    tar: u32,
    manifest: &IndexManifest,
    known: &mut HashSet<u128>,
    unusable: &mut Unusable,
) -> Result<DataShard, Failure> {
    let store = &desk.context.store;
    let (key, sha256) = (&manifest.index_key, &manifest.index.sha256);
    let bytes = desk.context.block_on(store.get_verified(key, sha256))?;
    let index = Index::read(key, bytes)?;
    let mut kept = Vec::with_capacity(index.len());
    for row in 0..index.len() {
        if known.insert(xxh3_128(index.key(row).as_bytes())) {
            kept.push(row);
        } else {
            let (key, tar) = (Some(index.key(row).to_owned()), manifest.tar.clone());
            let offset = index.row(row).offset;
            unusable.add(Cause::DuplicateKey, Place { key, tar, offset });
        }
    }
    let mut shard = DataShard {
        tar: manifest.tar.clone(),
        in_store: false,
        index: key.clone(),
        pairs: manifest.pairs,
        bytes: manifest.bytes,
        sha256: Some(manifest.sha256),
        index_sha256: *sha256,
    };
    if kept.len() < index.len() {
        let name = format!("index-{tar}.parquet");
        let mut without = IndexWriter::new(Vec::new())?;
        for &row in &kept {
            without.push(index.row(row))?;
        }
        shard.index_sha256 = desk.put(&name, without.finish()?)?.sha256;
        shard.index = desk.key(&name);
        shard.pairs = u32::try_from(kept.len()).expect("fewer than before");
    }
    Ok(shard)
}

/// Writes the list of unusable pairs where a person finds it, whatever becomes of the run.
fn write_list(context: &Context, unusable: &Unusable) -> Result<String, Failure> {
    let run = &context.job.run;
    let key = keys::unusable(run);
    let list = serde_json::to_vec_pretty(unusable).expect("counts and texts always serialise");
    context.block_on(context.store.put(&key, list))?;
    let path = context.store.local_path(&key);
    Ok(path.map_or(key, |path| path.display().to_string()))
}

/// Estimates the pairs that lay behind the faults of unreadable tars: nobody could count them.
#[derive(Default)]
struct Lost {
    sound: (u64, u64),
    broken: Vec<(u64, u64)>,
}

impl Lost {
    fn add(&mut self, manifest: &IndexManifest) {
        let seen = u64::from(manifest.pairs) + manifest.unusable.total();
        let is_broken = |(cause, _)| cause == Cause::UnreadableTar;
        if manifest.unusable.by_cause().any(is_broken) {
            self.broken.push((manifest.bytes, seen.saturating_sub(1)));
        } else {
            self.sound.0 += manifest.bytes;
            self.sound.1 += seen;
        }
    }

    /// As many as sound tars of that size hold, less those that were read.
    fn pairs(&self) -> u64 {
        let (bytes, pairs) = self.sound;
        let expected = |size: u64| {
            let scaled = u128::from(size) * u128::from(pairs) / u128::from(bytes.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        self.broken.iter().map(|(size, seen)| expected(*size).saturating_sub(*seen)).sum()
    }
}

/// Refuses a catalogue that the run was told not to go on with.
fn judge(
    context: &Context,
    pairs: u64,
    unusable: &Unusable,
    lost: u64,
    list: &str,
) -> Result<(), Failure> {
    let spec = &context.spec.spec;
    let (bad, allowed) = (unusable.total() + lost, spec.dataset.max_bad_share.0);
    let causes = unusable.summary();
    let causes = match lost {
        0 => causes,
        lost => format!("{causes}, and about {lost} pairs behind the faults of unreadable tars"),
    };
    if pairs == 0 {
        return Err(Failure::Data {
            message: format!(
                "the dataset has no usable pair (unusable: {causes}); spec.dataset.shards must name \
                 WebDataset tars of pictures and captions; the list is in {list}, details below {}",
                index::folder(context)
            ),
        });
    }
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share = bad as f64 / (bad + pairs) as f64;
    if share > allowed {
        return Err(Failure::Data {
            message: format!(
                "{bad} of {} pairs are unusable ({:.1}%, more than spec.dataset.maxBadShare allows: \
                 {:.1}%): {causes}; the list is in {list}; mend or leave out those tars, or raise \
                 maxBadShare",
                bad + pairs,
                100.0 * share,
                100.0 * allowed
            ),
        });
    }
    let batch = u64::from(spec.training.global_batch);
    if pairs < batch {
        return Err(Failure::Config {
            message: format!(
                "the dataset has {pairs} usable pairs, fewer than one global batch of {batch}; add \
                 data, or make spec.training.globalBatch smaller"
            ),
        });
    }
    Ok(())
}
