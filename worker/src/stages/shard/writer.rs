//! Writes the shards of one expert, one after the other.

use std::io;

use clade_core::job::Failure;
use clade_store::{DataShard, StoreError};
use serde::Serialize;

use crate::data::index::{self, PairRow};
use crate::data::tar_file::TarFile;
use crate::stages::commit::Desk;

pub(super) struct Writer<'a> {
    desk: &'a Desk<'a>,
    expert: u32,
    target: u64,
    open: Option<Open>,
    done: Vec<DataShard>,
}

struct Open {
    tar: TarFile,
    rows: Vec<PairRow>,
}

/// The JSON member beside each picture.
#[derive(Serialize)]
struct Texts<'a> {
    key: &'a str,
    texts: &'a [String],
}

impl<'a> Writer<'a> {
    pub(super) const fn new(desk: &'a Desk<'a>, expert: u32, target: u64) -> Self {
        Self { desk, expert, target, open: None, done: Vec::new() }
    }

    /// Writes one pair.
    pub(super) fn add(&mut self, row: PairRow, picture: &[u8]) -> Result<(), Failure> {
        if self.open.as_ref().is_some_and(|open| open.tar.bytes() >= self.target) {
            self.close()?;
        }
        let number = self.done.len();
        let name = self.name(number);
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let path = self.desk.context.scratch.join(&name);
                let refused = |error| disk_error(&path, error);
                let folder = path.parent().unwrap_or(&path);
                std::fs::create_dir_all(folder).map_err(refused)?;
                let tar = TarFile::create(&path).map_err(refused)?;
                self.open.insert(Open { tar, rows: Vec::new() })
            }
        };
        let texts = serde_json::to_vec(&Texts { key: &row.key, texts: &row.captions })
            .expect("texts always serialise");
        let extension = row.format.extension();
        let appended =
            open.tar.append(&format!("{}.{extension}", row.key), picture).and_then(|offset| {
                open.tar.append(&format!("{}.json", row.key), &texts).map(|_| offset)
            });
        let offset = appended.map_err(|error| disk_error(open.tar.path(), error))?;
        open.rows.push(PairRow { offset, ..row });
        Ok(())
    }

    /// Ends the last shard and tells of all.
    pub(super) fn finish(mut self) -> Result<Vec<DataShard>, Failure> {
        self.close()?;
        Ok(self.done)
    }

    fn name(&self, number: usize) -> String {
        format!("expert-{}-{number:06}.tar", self.expert)
    }

    fn close(&mut self) -> Result<(), Failure> {
        let Some(Open { tar, rows }) = self.open.take() else {
            return Ok(());
        };
        let name = self.name(self.done.len());
        let path = tar.path().to_owned();
        tar.finish().map_err(|error| disk_error(&path, error))?;
        let part = self.desk.upload(&path, &name)?;
        std::fs::remove_file(&path).map_err(|error| disk_error(&path, error))?;
        let index_name = name.replace(".tar", ".parquet");
        let index = self.desk.put(&index_name, index::encode(&rows)?)?;
        self.done.push(DataShard {
            tar: self.desk.key(&name),
            in_store: true,
            index: self.desk.key(&index_name),
            pairs: u32::try_from(rows.len()).expect("a shard of a bounded size holds fewer"),
            bytes: part.bytes,
            sha256: Some(part.sha256),
            index_sha256: index.sha256,
        });
        Ok(())
    }
}

fn disk_error(path: &std::path::Path, error: io::Error) -> Failure {
    StoreError::from_io(path.display().to_string(), error).into()
}
