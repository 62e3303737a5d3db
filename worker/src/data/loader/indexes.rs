//! The indexes of a manifest's shards, the recently used ones in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use clade_core::job::Failure;
use clade_store::{DataShard, Store};
use tokio::runtime::Handle;

use crate::data::index::{self, PairRow};
use crate::data::table::TableError;

/// Indexes held: pairs mix over a few shards at a time, and a batch may span two such blocks.
const HELD: usize = 64;

pub(crate) struct Indexes {
    store: Store,
    runtime: Handle,
    /// Newest use last.
    held: Mutex<VecDeque<(u32, Arc<Vec<PairRow>>)>>,
}

impl Indexes {
    pub(crate) fn new(store: Store, runtime: Handle) -> Self {
        Self { store, runtime, held: Mutex::default() }
    }

    /// The rows of a shard, proved by digest and count.
    pub(crate) fn of(&self, number: u32, shard: &DataShard) -> Result<Arc<Vec<PairRow>>, Failure> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().position(|(known, _)| *known == number) {
            let found = held.remove(at).expect("its position was just found");
            let rows = Arc::clone(&found.1);
            held.push_back(found);
            return Ok(rows);
        }
        let rows = Arc::new(read_index(&self.store, &self.runtime, shard)?);
        if held.len() >= HELD {
            held.pop_front();
        }
        held.push_back((number, Arc::clone(&rows)));
        Ok(rows)
    }
}

/// Reads the index that a manifest names.
pub(crate) fn read_index(
    store: &Store,
    runtime: &Handle,
    shard: &DataShard,
) -> Result<Vec<PairRow>, Failure> {
    let DataShard { index: key, index_sha256, pairs, .. } = shard;
    let bytes = runtime.block_on(store.get_verified(key, index_sha256))?;
    let rows = index::decode(key, bytes)?;
    if rows.len() as u64 != u64::from(*pairs) {
        let reason = format!("it has {} pairs where its manifest says {pairs}", rows.len());
        return Err(TableError::Unexpected { key: key.clone(), reason }.into());
    }
    Ok(rows)
}
