//! Writes the shards of one expert, or of the pool, one after the other.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use clade_core::job::Failure;
use clade_pairs::index::{Foreign, IndexWriter, PairRow};
use clade_pairs::table::TableError;
use clade_pairs::tar_file::TarFile;
use clade_store::{DataShard, Part, StoreError, Upload};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::stages::commit::Desk;

/// Bytes handed to the store at once.
const LOT: usize = 1 << 20;
/// Shards that may be on their way to the disk while the next is filled.
const CLOSING: usize = 2;

pub(super) struct Writer<'a> {
    desk: &'a Desk<'a>,
    /// What the names of its shards begin with.
    name: String,
    /// Bytes at which a shard is closed.
    target: u64,
    is_foreign: bool,
    open: Option<Open>,
    closing: VecDeque<Closing>,
    done: Vec<Written>,
}

/// A shard, and where its rows stand in the pool, if it is one of the pool's.
pub(super) struct Written {
    pub(super) shard: DataShard,
    pub(super) foreign: Vec<Foreign>,
}

struct Open {
    tar: TarFile,
    upload: Upload,
    rows: IndexWriter<Vec<u8>>,
    foreign: Vec<Foreign>,
}

/// A shard whose last bytes are on their way.
struct Closing {
    tar: JoinHandle<Result<Part, StoreError>>,
    index: Vec<u8>,
    pairs: u64,
    foreign: Vec<Foreign>,
}

/// The JSON member beside each picture.
#[derive(Serialize)]
struct Texts<'a> {
    key: &'a str,
    texts: &'a [String],
}

impl<'a> Writer<'a> {
    pub(super) fn new(desk: &'a Desk<'a>, name: String, target: u64, is_foreign: bool) -> Self {
        let (open, closing, done) = (None, VecDeque::new(), Vec::new());
        Self { desk, name, target, is_foreign, open, closing, done }
    }

    /// Writes one pair.
    pub(super) fn add(
        &mut self,
        row: &PairRow,
        picture: &[u8],
        foreign: Option<Foreign>,
    ) -> Result<(), Failure> {
        if self.open.as_ref().is_some_and(|open| open.tar.bytes() >= self.target) {
            self.close()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let texts = serde_json::to_vec(&Texts { key: &row.key, texts: &row.captions })
            .expect("texts always serialise");
        let extension = row.format.extension();
        let offset = open
            .tar
            .append(&format!("{}.{extension}", row.key), picture)
            .and_then(|offset| {
                open.tar.append(&format!("{}.json", row.key), &texts).map(|_| offset)
            })
            .map_err(|error| unfit(row, &error))?;
        let row = PairRow { offset, ..row.clone() };
        match foreign {
            Some(place) => {
                open.foreign.push(place);
                open.rows.push_foreign(row, place)?;
            }
            None => open.rows.push(row)?,
        }
        if let Some(part) = open.tar.take(LOT) {
            self.desk.context.block_on(open.upload.write_bytes(Bytes::from(part)))?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Ends the last shard and tells of all.
    pub(super) fn finish(mut self) -> Result<Vec<Written>, Failure> {
        self.close()?;
        while let Some(closing) = self.closing.pop_front() {
            self.closed(closing)?;
        }
        Ok(self.done)
    }

    /// Gives up what is not finished, so that nothing of it stays in the store.
    pub(super) fn give_up(self) {
        let context = self.desk.context;
        for closing in self.closing {
            closing.tar.abort();
        }
        if let Some(open) = self.open
            && let Err(error) = context.block_on(open.upload.abort())
        {
            tracing::debug!(%error, "a broken-off shard was not cleared away");
        }
    }

    fn name(&self, number: usize) -> String {
        format!("{}-{number:06}", self.name)
    }

    fn open(&self) -> Result<Open, Failure> {
        let context = self.desk.context;
        let name = self.name(self.done.len() + self.closing.len());
        let key = self.desk.key(&format!("{name}.tar"));
        let upload = context.block_on(context.store.begin_upload(&key))?;
        let table = |it: Result<_, TableError>| it.map_err(Failure::from);
        let rows = if self.is_foreign {
            table(IndexWriter::foreign(Vec::new()))?
        } else {
            table(IndexWriter::new(Vec::new()))?
        };
        Ok(Open { tar: TarFile::default(), upload, rows, foreign: Vec::new() })
    }

    /// Sends off the open shard. It is durable, and named, once it is taken from `closing`.
    fn close(&mut self) -> Result<(), Failure> {
        let Some(Open { tar, mut upload, rows, foreign }) = self.open.take() else {
            return Ok(());
        };
        let pairs = rows.rows();
        let index = rows.finish()?;
        let rest = tar.finish().map_err(|error| StoreError::from_io(self.name.clone(), error))?;
        let tar = self.desk.context.runtime.spawn(async move {
            upload.write_bytes(Bytes::from(rest)).await?;
            upload.finish().await
        });
        self.closing.push_back(Closing { tar, index, pairs, foreign });
        while self.closing.len() > CLOSING {
            let oldest = self.closing.pop_front().expect("there are some");
            self.closed(oldest)?;
        }
        Ok(())
    }

    fn closed(&mut self, closing: Closing) -> Result<(), Failure> {
        let Closing { tar, index, pairs, foreign } = closing;
        let part = self.desk.context.block_on(tar).map_err(|error| Failure::Crashed {
            rank: 0,
            message: format!("a shard's upload broke off: {error}"),
        })??;
        let name = self.name(self.done.len());
        let (tar, table) = (format!("{name}.tar"), format!("{name}.parquet"));
        let index = self.desk.put(&table, index)?;
        let shard = DataShard {
            tar: self.desk.key(&tar),
            in_store: true,
            index: self.desk.key(&table),
            pairs: u32::try_from(pairs).expect("a shard of a bounded size holds fewer"),
            bytes: part.bytes,
            sha256: Some(part.sha256),
            index_sha256: index.sha256,
        };
        self.done.push(Written { shard, foreign });
        Ok(())
    }
}

/// A key that no tar can hold; the index job lets none pass.
fn unfit(row: &PairRow, error: &io::Error) -> Failure {
    Failure::Data { message: format!("pair `{}` cannot be written to a tar: {error}", row.key) }
}
