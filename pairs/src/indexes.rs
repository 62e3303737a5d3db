//! The indexes of a manifest's shards, the recently used ones in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use clade_core::job::Failure;
use clade_store::{DataShard, Store};
use tokio::runtime::Handle;

use crate::index::{Index, PairRow};
use crate::table::TableError;

/// Indexes held: pairs mix over a few shards at a time, and a batch may span two such blocks.
const HELD: usize = 64;
/// Rows held, at some hundred bytes each; the two indexes used last are held whatever their size.
const HELD_ROWS: usize = 4_000_000;

/// Reads indexes when they are asked for.
pub struct Indexes {
    store: Store,
    runtime: Handle,
    /// Newest use last.
    held: Mutex<VecDeque<(usize, Arc<Held>)>>,
}

/// One index, and the rows of a foreign shard by the pass they are due in.
pub struct Held {
    pub index: Index,
    /// Rows by pass, those of the model's own left out; empty for a shard of its own.
    pub by_pass: Vec<Vec<u32>>,
}

impl Indexes {
    pub fn new(store: Store, runtime: Handle) -> Self {
        Self { store, runtime, held: Mutex::default() }
    }

    /// The index of shard `number`, proved by digest and count.
    ///
    /// Of a foreign shard, `view` is the expert that looks and the pairs of each pass its manifest counts.
    pub fn of(
        &self,
        number: usize,
        shard: &DataShard,
        view: Option<(u32, &[u32])>,
    ) -> Result<Arc<Held>, Failure> {
        if let Some(found) = self.known(number) {
            return Ok(found);
        }
        let index = read(&self.store, &self.runtime, shard)?;
        let by_pass = match view {
            Some((expert, counts)) => by_pass(&index, shard, expert, counts)?,
            None => Vec::new(),
        };
        let found = Arc::new(Held { index, by_pass });
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = |held: &VecDeque<(usize, Arc<Held>)>| -> usize {
            held.iter().map(|(_, held)| held.index.len()).sum()
        };
        while held.len() >= HELD || (held.len() >= 2 && rows(&held) > HELD_ROWS) {
            held.pop_front();
        }
        held.push_back((number, Arc::clone(&found)));
        Ok(found)
    }

    fn known(&self, number: usize) -> Option<Arc<Held>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.iter().position(|(known, _)| *known == number)?;
        let found = held.remove(at)?;
        let index = Arc::clone(&found.1);
        held.push_back(found);
        Some(index)
    }
}

/// The rows of each pass that are not `expert`'s own: what the order of data counts.
fn by_pass(
    index: &Index,
    shard: &DataShard,
    expert: u32,
    counts: &[u32],
) -> Result<Vec<Vec<u32>>, Failure> {
    let mut rows = vec![Vec::new(); counts.len()];
    for (number, row) in (0..).zip(0..index.len()) {
        let place = index.foreign(row);
        let pass = place.and_then(|place| rows.get_mut(place.pass as usize));
        let (Some(place), Some(pass)) = (place, pass) else {
            let (key, reason) = (shard.index.clone(), "it is no index of foreign pairs".to_owned());
            return Err(TableError::Unexpected { key, reason }.into());
        };
        if place.owner != expert {
            pass.push(number);
        }
    }
    if rows.iter().map(Vec::len).ne(counts.iter().map(|&count| count as usize)) {
        let reason = format!("it does not hold the pairs of each pass that expert-{expert} counts");
        return Err(TableError::Unexpected { key: shard.index.clone(), reason }.into());
    }
    Ok(rows)
}

/// Reads the index that a manifest names.
pub fn read(store: &Store, runtime: &Handle, shard: &DataShard) -> Result<Index, Failure> {
    let DataShard { index: key, index_sha256, pairs, .. } = shard;
    let bytes = runtime.block_on(store.get_verified(key, index_sha256))?;
    let index = Index::read(key, bytes)?;
    if index.len() as u64 != u64::from(*pairs) {
        let reason = format!("it has {} pairs where its manifest says {pairs}", index.len());
        return Err(TableError::Unexpected { key: key.clone(), reason }.into());
    }
    Ok(index)
}

/// The rows of the index that a manifest names.
pub fn read_index(
    store: &Store,
    runtime: &Handle,
    shard: &DataShard,
) -> Result<Vec<PairRow>, Failure> {
    let index = read(store, runtime, shard)?;
    Ok((0..index.len()).map(|row| index.row(row)).collect())
}
