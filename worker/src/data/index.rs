//! The index of a tar or shard: one row per usable pair, in the order of the tar.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::DataType;
use bytes::Bytes;

use super::picture::Format;
use super::table::{self, TableError};

/// One usable pair and where its picture lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PairRow {
    pub(crate) key: String,
    /// At least one, trimmed, none empty.
    pub(crate) captions: Vec<String>,
    /// Where the picture's bytes start in the tar.
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) format: Format,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Writes an index as a table.
pub(crate) fn encode(rows: &[PairRow]) -> Result<Vec<u8>, TableError> {
    let mut captions =
        ListBuilder::new(StringBuilder::new()).with_field(table::item(DataType::Utf8));
    for row in rows {
        for caption in &row.captions {
            captions.values().append_value(caption);
        }
        captions.append(true);
    }
    let keys = StringArray::from_iter_values(rows.iter().map(|row| &row.key));
    let formats = StringArray::from_iter_values(rows.iter().map(|row| row.format.extension()));
    let offsets = UInt64Array::from_iter_values(rows.iter().map(|row| row.offset));
    let numbers = |of: fn(&PairRow) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(of)))
    };
    table::write(vec![
        ("key", Arc::new(keys)),
        ("captions", Arc::new(captions.finish())),
        ("offset", Arc::new(offsets)),
        ("length", numbers(|row| row.length)),
        ("format", Arc::new(formats)),
        ("width", numbers(|row| row.width)),
        ("height", numbers(|row| row.height)),
    ])
}

/// Reads an index back; `key` names it in errors.
pub(crate) fn decode(key: &str, bytes: Bytes) -> Result<Vec<PairRow>, TableError> {
    let mut rows = Vec::new();
    for batch in table::read(key, bytes)? {
        decode_batch(key, &batch, &mut rows)?;
    }
    Ok(rows)
}

fn decode_batch(key: &str, batch: &RecordBatch, rows: &mut Vec<PairRow>) -> Result<(), TableError> {
    let unexpected = |reason: String| TableError::Unexpected { key: key.to_owned(), reason };
    let text = |name| table::column::<StringArray>(key, batch, name);
    let number = |name| table::column::<UInt32Array>(key, batch, name);
    let (keys, formats) = (text("key")?, text("format")?);
    let (lengths, widths, heights) = (number("length")?, number("width")?, number("height")?);
    let offsets = table::column::<UInt64Array>(key, batch, "offset")?;
    let captions = table::column::<ListArray>(key, batch, "captions")?;
    for row in 0..batch.num_rows() {
        let list = captions.value(row);
        let list: &StringArray = list
            .as_any()
            .downcast_ref()
            .ok_or_else(|| unexpected("captions are not texts".to_owned()))?;
        rows.push(PairRow {
            key: keys.value(row).to_owned(),
            captions: list.iter().flatten().map(str::to_owned).collect(),
            offset: offsets.value(row),
            length: lengths.value(row),
            format: Format::from_extension(formats.value(row))
                .ok_or_else(|| unexpected(format!("format `{}`", formats.value(row))))?,
            width: widths.value(row),
            height: heights.value(row),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_reads_back_as_it_was_written() {
        let row = |key: &str, captions: &[&str]| PairRow {
            key: key.to_owned(),
            captions: captions.iter().map(|&caption| caption.to_owned()).collect(),
            offset: 1 << 40,
            length: 17,
            format: Format::Webp,
            width: 1,
            height: 20_000,
        };
        let rows = vec![row("a/b", &["one", "zwei — ½"]), row("c", &["x"])];
        let bytes = encode(&rows).unwrap();
        assert_eq!(decode("k", bytes.into()).unwrap(), rows);
        assert_eq!(decode("k", encode(&[]).unwrap().into()).unwrap(), []);
        let error = decode("the/key", Bytes::from_static(b"PAR1 or not")).unwrap_err();
        assert!(error.to_string().contains("the/key"));
    }
}
