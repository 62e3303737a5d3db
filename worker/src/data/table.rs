//! Parquet tables in memory: written whole, read whole, judged when read.
//!
//! A table belongs to one tar or one shard, so it is small; what is large is read tar by tar.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use clade_core::job::Failure;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
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

/// Writes equally long columns as one table.
pub(crate) fn write(columns: Vec<(&str, ArrayRef)>) -> Result<Vec<u8>, TableError> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), false))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let wrong = |error: ParquetError| TableError::Unwritable(error);
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)
        .map_err(|error| wrong(ParquetError::from(error)))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(wrong)?;
    writer.write(&batch).map_err(wrong)?;
    writer.into_inner().map_err(wrong)
}

/// Reads a table, in as many batches as it happens to come.
pub(crate) fn read(key: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, TableError> {
    let unreadable = |source| TableError::Unreadable { key: key.to_owned(), source };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(1 << 16).build())
        .map_err(unreadable)?;
    reader.collect::<Result<_, _>>().map_err(|error| unreadable(error.into()))
}

/// A column of a batch, by name and type.
pub(crate) fn column<'a, A: Array + 'static>(
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
pub(crate) fn item(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", data_type, false))
}
