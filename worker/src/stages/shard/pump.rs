//! Reads the pictures of one tar on a thread of its own, a few megabytes ahead of who writes them.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow_array::{StringArray, UInt32Array};
use clade_core::job::Failure;
use clade_pairs::index::{self, PairRow};
use clade_pairs::reading::Reading;
use clade_pairs::source::{Source, input_error};
use clade_pairs::table::{self, Batches, TableError};
use clade_store::{DataShard, StoreError};

use crate::context::{Context, Ending};
use crate::stages::embed::Table;

/// Bytes of the tar that are read at once, and how many such lots may wait.
const LOT_BYTES: u64 = 4 << 20;
const LOTS: usize = 2;
/// Pairs of one lot at most.
const LOT_PAIRS: usize = 1_024;
/// Rows of an assignment read at a time.
const ROWS: usize = 4_096;

/// One pair on its way to its expert.
pub(super) struct Item {
    pub(super) row: PairRow,
    /// Its fine cluster.
    pub(super) fine: u32,
}

/// A part of the tar, and the pairs whose pictures lie in it.
#[derive(Default)]
struct Lot {
    /// Where in the tar `bytes` begin.
    start: u64,
    bytes: Vec<u8>,
    /// How much of `bytes` there is: less than asked for if the tar ends before.
    read: usize,
    items: Vec<Item>,
}

impl Lot {
    /// The picture of one of its items; none if the tar ends before it does.
    fn picture(&self, row: &PairRow) -> Option<&[u8]> {
        let start = usize::try_from(row.offset - self.start).ok()?;
        self.bytes[..self.read].get(start..start + row.length as usize)
    }
}

/// An assignment table that is not the one of its index.
pub(super) fn mismatch(shard: &DataShard) -> Failure {
    let message = format!("the assignment of `{}` does not belong to its index", shard.tar);
    Failure::Storage { message }
}

/// Hands `take` every pair of one input tar with its picture's bytes, in the order of its index.
pub(super) fn pictures(
    context: &Context,
    shard: &DataShard,
    table: &Table,
    mut take: impl FnMut(Item, Option<&[u8]>) -> Result<(), Ending>,
) -> Result<(), Ending> {
    let source = Source::open_input(&shard.tar, &context.runtime)?;
    let rows = rows(context, shard)?;
    let bytes = context.block_on(context.store.get_verified(&table.key, &table.sha256));
    let fine = assignments(&table.key, bytes.map_err(Failure::from)?).map_err(Failure::from)?;
    std::thread::scope(|scope| {
        let (sender, lots) = sync_channel(LOTS);
        // Lots go back to be filled anew.
        let (back, empty) = sync_channel(LOTS + 2);
        let reader = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn_scoped(scope, move || read(&source, shard, rows, fine, &sender, &empty))
            .map_err(|error| Failure::Launch {
                rank: 0,
                message: format!("no thread to read {}: {error}", shard.tar),
            })?;
        let mut taken = Ok(());
        for mut lot in lots.iter() {
            let mut items = std::mem::take(&mut lot.items);
            taken = items.drain(..).try_for_each(|item| {
                let picture = lot.picture(&item.row);
                take(item, picture)
            });
            if taken.is_err() {
                break;
            }
            lot.items = items;
            if lot.bytes.len() as u64 <= LOT_BYTES {
                // Nobody wants it once the tar is read.
                let _ = back.try_send(lot);
            }
        }
        // The reader stops at its next lot if nobody takes them any more.
        drop(lots);
        match reader.join() {
            Ok(read) => taken.and(read.map_err(Ending::from)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The rows of a tar's index, streamed from a proved copy in the scratch folder.
fn rows(
    context: &Context,
    shard: &DataShard,
) -> Result<impl Iterator<Item = Result<PairRow, TableError>> + Send + use<>, Failure> {
    let copy = context.scratch.join("index.parquet");
    context.block_on(context.store.download(&shard.index, &copy, &shard.index_sha256))?;
    let gone = |error| StoreError::from_io(copy.display().to_string(), error);
    let file = std::fs::File::open(&copy).map_err(gone)?;
    // It stays readable while it is open.
    std::fs::remove_file(&copy).map_err(gone)?;
    Ok(index::rows(&shard.index, file)?)
}

/// Key and fine cluster of every row.
fn assignments(
    key: &str,
    bytes: bytes::Bytes,
) -> Result<impl Iterator<Item = Result<(String, u32), TableError>> + Send + use<>, TableError> {
    let name = key.to_owned();
    let pairs = move |batch: Result<_, TableError>| {
        let batch = batch?;
        let keys = table::column::<StringArray>(&name, &batch, "key")?;
        let fine = table::column::<UInt32Array>(&name, &batch, "fine")?;
        let pairs = keys.iter().flatten().map(str::to_owned).zip(fine.values().iter().copied());
        Ok(pairs.collect::<Vec<_>>())
    };
    Ok(Batches::open(key, bytes, ROWS)?.map(pairs).flat_map(|pairs| match pairs {
        Ok(pairs) => pairs.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }))
}

fn read(
    source: &Source,
    shard: &DataShard,
    rows: impl Iterator<Item = Result<PairRow, TableError>>,
    mut fine: impl Iterator<Item = Result<(String, u32), TableError>>,
    sender: &SyncSender<Lot>,
    empty: &Receiver<Lot>,
) -> Result<(), Failure> {
    let mut reading = Reading::new(source)?;
    // Reads the pictures of the gathered items, and sends them off; false if nobody takes them.
    let mut send = |items: Vec<Item>, span: Range<u64>| -> Result<bool, Failure> {
        let mut lot = empty.try_recv().unwrap_or_default();
        let length = usize::try_from(span.end - span.start).expect("a lot fits memory");
        if lot.bytes.len() < length {
            lot.bytes.resize(length, 0);
        }
        let failed = |error: io::Error| input_error(Path::new(&shard.tar), error);
        lot.read = reading.span(span.start, &mut lot.bytes[..length]).map_err(failed)?;
        (lot.start, lot.items) = (span.start, items);
        Ok(sender.send(lot).is_ok())
    };
    let (mut items, mut span) = (Vec::new(), 0..0);
    for row in rows {
        let row = row?;
        let (key, fine) = fine.next().ok_or_else(|| mismatch(shard))??;
        if key != row.key {
            return Err(mismatch(shard));
        }
        let end = row.offset.checked_add(u64::from(row.length)).ok_or_else(|| mismatch(shard))?;
        let fits = row.offset >= span.start && end <= span.start + LOT_BYTES;
        let is_full = !items.is_empty() && (!fits || items.len() == LOT_PAIRS);
        if is_full && !send(std::mem::take(&mut items), span.clone())? {
            return Ok(());
        }
        if items.is_empty() {
            span = row.offset..end;
        }
        span.end = span.end.max(end);
        items.push(Item { row, fine });
    }
    if fine.next().is_some() {
        return Err(mismatch(shard));
    }
    // Whoever went away has a reason of his own.
    send(items, span).map(drop)
}
