//! Parquet tables: written row group by row group, judged when read.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use clade_core::job::Failure;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::ChunkReader;

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("`{key}` is not a readable table: {source}")]
    Unreadable {
        key: String,
        #[source]
        source: ParquetError,
    },
    #[error("`{key}` is not the table it should be: {reason}")]
    Unexpected { key: String, reason: String },
    #[error("a table cannot be written: {0}")]
    Unwritable(#[source] ParquetError),
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self::Storage { message: error.to_string() }
    }
}

/// Rows of a row group: what a writer holds in memory.
const GROUP_ROWS: usize = 1 << 14;
/// Bytes of a row group, about.
const GROUP_BYTES: usize = 16 << 20;

/// Writes equally long columns as one table.
pub fn write(columns: Vec<(&str, ArrayRef)>) -> Result<Vec<u8>, TableError> {
    let batch = batch(columns)?;
    let mut writer = Writer::new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    writer.finish()
}

/// Puts columns side by side.
pub fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, TableError> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), false))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|error| TableError::Unwritable(ParquetError::from(error)))
}

/// A table in the making; the same rows give the same bytes, however they come in batches.
pub struct Writer<W: Write + Send>(ArrowWriter<W>);

impl<W: Write + Send> Writer<W> {
    pub fn new(to: W, schema: &Arc<Schema>) -> Result<Self, TableError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .build();
        ArrowWriter::try_new(to, Arc::clone(schema), Some(properties))
            .map(Self)
            .map_err(TableError::Unwritable)
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        self.0.write(batch).map_err(TableError::Unwritable)
    }

    /// Ends the table.
    pub fn finish(self) -> Result<W, TableError> {
        self.0.into_inner().map_err(TableError::Unwritable)
    }
}

/// Reads a table, in as many batches as it happens to come.
pub fn read(key: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, TableError> {
    Batches::open(key, bytes, 1 << 16)?.collect()
}

/// The batches of a table, one after the other.
pub struct Batches {
    key: String,
    reader: ParquetRecordBatchReader,
}

impl Batches {
    /// Opens a table in memory or in a file; batches have at most `rows` rows.
    pub fn open(
        key: &str,
        from: impl ChunkReader + 'static,
        rows: usize,
    ) -> Result<Self, TableError> {
        let reader = caught(key, || {
            ParquetRecordBatchReaderBuilder::try_new(from)
                .and_then(|builder| builder.with_batch_size(rows).build())
        })?;
        Ok(Self { key: key.to_owned(), reader })
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { key, reader } = self;
        caught(key, || reader.next().transpose().map_err(ParquetError::from)).transpose()
    }
}

/// Reads what may be hostile: the reader is other people's code, and panics on some of it.
fn caught<T>(key: &str, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, TableError> {
    let panicked = || ParquetError::General("its reader panicked".to_owned());
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(panicked()))
        .map_err(|source| TableError::Unreadable { key: key.to_owned(), source })
}

/// A column of a batch, by name and type.
pub fn column<'a, A: Array + 'static>(
    key: &str,
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a A, TableError> {
    let unexpected = |reason| TableError::Unexpected { key: key.to_owned(), reason };
    let array = batch
        .column_by_name(name)
        .ok_or_else(|| unexpected(format!("it has no column `{name}`")))?;
    if array.null_count() > 0 {
        return Err(unexpected(format!("column `{name}` has gaps")));
    }
    array
        .as_any()
        .downcast_ref()
        .ok_or_else(|| unexpected(format!("column `{name}` is of type {}", array.data_type())))
}

/// The item field of list columns.
pub fn item(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", data_type, false))
}
