//! The index of a tar or shard: one row per usable pair.
//!
//! Rows of one tar stand in the order in which their pairs are complete there. The index of a shard
//! of the foreign pool has two columns more: the pass a pair is due in, and the expert it belongs to.

use std::io::Write;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use parquet::file::reader::ChunkReader;
use xxhash_rust::xxh3::xxh3_64;

use super::picture::Format;
use super::table::{self, Batches, TableError, Writer};

/// Rows written or read at a time.
const ROWS: usize = 4_096;
/// Bytes of captions and keys that wait to be written.
const WAITING_BYTES: usize = 4 << 20;

/// Some text of the pair is not UTF-8: what is not is replaced.
pub const FLAG_TEXT_REPLACED: u32 = 1;
/// A text or JSON member beside the ones used is broken or too long, and was left out.
pub const FLAG_TEXT_LEFT_OUT: u32 = 2;
/// The members of the pair do not stand together in the tar.
pub const FLAG_SCATTERED: u32 = 4;

/// One usable pair and where its picture lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairRow {
    pub key: String,
    /// At least one, trimmed, none empty.
    pub captions: Vec<String>,
    /// Where the picture's bytes start in the tar.
    pub offset: u64,
    /// Bytes of the picture.
    pub length: u32,
    pub format: Format,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// [`checksum`] of the picture's bytes.
    pub checksum: u64,
    /// Sum of the flags above.
    pub flags: u32,
}

/// What tells whether a picture's bytes are those that were indexed: XXH3, 64 bits.
pub fn checksum(picture: &[u8]) -> u64 {
    xxh3_64(picture)
}

/// A foreign pair's place in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub pass: u32,
    /// The expert whose own pair it is.
    pub owner: u32,
}

/// An index in the making.
pub struct IndexWriter<W: Write + Send> {
    writer: Writer<W>,
    waiting: Vec<PairRow>,
    waiting_bytes: usize,
    /// As long as `waiting` in the index of a foreign shard.
    foreign: Option<Vec<Foreign>>,
    rows: u64,
}

impl<W: Write + Send> IndexWriter<W> {
    pub fn new(to: W) -> Result<Self, TableError> {
        Self::with(to, None)
    }

    /// The index of a shard of the foreign pool.
    pub fn foreign(to: W) -> Result<Self, TableError> {
        Self::with(to, Some(Vec::new()))
    }

    fn with(to: W, foreign: Option<Vec<Foreign>>) -> Result<Self, TableError> {
        let writer = Writer::new(to, &schema(foreign.is_some())?)?;
        Ok(Self { writer, waiting: Vec::new(), waiting_bytes: 0, foreign, rows: 0 })
    }

    /// Rows so far.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    pub fn push(&mut self, row: PairRow) -> Result<(), TableError> {
        self.waiting_bytes += row.captions.iter().map(String::len).sum::<usize>() + row.key.len();
        self.waiting.push(row);
        self.rows += 1;
        let is_full = self.waiting.len() >= ROWS || self.waiting_bytes >= WAITING_BYTES;
        if is_full { self.write() } else { Ok(()) }
    }

    pub fn push_foreign(&mut self, row: PairRow, place: Foreign) -> Result<(), TableError> {
        self.foreign.as_mut().expect("made for a foreign shard").push(place);
        self.push(row)
    }

    fn write(&mut self) -> Result<(), TableError> {
        self.writer.write(&batch(&self.waiting, self.foreign.as_deref())?)?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        if let Some(foreign) = &mut self.foreign {
            foreign.clear();
        }
        Ok(())
    }

    /// Ends the index.
    pub fn finish(mut self) -> Result<W, TableError> {
        if !self.waiting.is_empty() {
            self.write()?;
        }
        self.writer.finish()
    }
}

fn schema(is_foreign: bool) -> Result<Arc<Schema>, TableError> {
    let none: &[Foreign] = &[];
    Ok(batch(&[], is_foreign.then_some(none))?.schema())
}

fn batch(rows: &[PairRow], foreign: Option<&[Foreign]>) -> Result<RecordBatch, TableError> {
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
    let wide = |of: fn(&PairRow) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)))
    };
    let numbers = |of: fn(&PairRow) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(of)))
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("key", Arc::new(keys)),
        ("captions", Arc::new(captions.finish())),
        ("offset", wide(|row| row.offset)),
        ("length", numbers(|row| row.length)),
        ("format", Arc::new(formats)),
        ("width", numbers(|row| row.width)),
        ("height", numbers(|row| row.height)),
        ("checksum", wide(|row| row.checksum)),
        ("flags", numbers(|row| row.flags)),
    ];
    if let Some(foreign) = foreign {
        let of = |number: fn(&Foreign) -> u32| -> ArrayRef {
            Arc::new(UInt32Array::from_iter_values(foreign.iter().map(number)))
        };
        columns.push(("pass", of(|place| place.pass)));
        columns.push(("owner", of(|place| place.owner)));
    }
    table::batch(columns)
}

/// Writes an index at once.
pub fn encode(rows: &[PairRow]) -> Result<Vec<u8>, TableError> {
    let mut writer = IndexWriter::new(Vec::new())?;
    for row in rows {
        writer.push(row.clone())?;
    }
    writer.finish()
}

/// Reads an index at once; `key` names it in errors.
pub fn decode(key: &str, bytes: Bytes) -> Result<Vec<PairRow>, TableError> {
    let index = Index::read(key, bytes)?;
    Ok((0..index.len()).map(|row| index.row(row)).collect())
}

/// The rows of an index one after the other, a few thousand in memory.
pub fn rows<R: ChunkReader + 'static>(
    key: &str,
    from: R,
) -> Result<impl Iterator<Item = Result<PairRow, TableError>> + Send + use<R>, TableError> {
    let key = key.to_owned();
    Ok(Batches::open(&key, from, ROWS)?.flat_map(move |batch| {
        let part = batch.and_then(|batch| Part::of(&key, &batch));
        let (part, error) = match part {
            Ok(part) => (Some(part), None),
            Err(error) => (None, Some(Err(error))),
        };
        let rows = part.map(|part| (0..part.len()).map(move |row| Ok(part.row(row))));
        rows.into_iter().flatten().chain(error)
    }))
}

/// An index in memory, as compact as its columns.
#[derive(Debug)]
pub struct Index {
    parts: Vec<Part>,
    /// Rows before each part.
    before: Vec<usize>,
    rows: usize,
}

impl Index {
    /// Reads the whole of an index; `key` names it in errors.
    pub fn read(key: &str, bytes: Bytes) -> Result<Self, TableError> {
        let mut index = Self { parts: Vec::new(), before: Vec::new(), rows: 0 };
        for batch in Batches::open(key, bytes, 1 << 16)? {
            let part = Part::of(key, &batch?)?;
            index.before.push(index.rows);
            index.rows += part.len();
            index.parts.push(part);
        }
        Ok(index)
    }

    pub const fn len(&self) -> usize {
        self.rows
    }

    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// # Panics
    ///
    /// Unless `row` is below [`Self::len`].
    pub fn row(&self, row: usize) -> PairRow {
        let (part, row) = self.place(row);
        part.row(row)
    }

    /// The key of a row, without the rest of it.
    pub fn key(&self, row: usize) -> &str {
        let (part, row) = self.place(row);
        part.keys.value(row)
    }

    /// Where a row stands in the foreign pool, if this is the index of a shard of it.
    pub fn foreign(&self, row: usize) -> Option<Foreign> {
        let (part, row) = self.place(row);
        let (passes, owners) = part.foreign.as_ref()?;
        Some(Foreign { pass: passes.value(row), owner: owners.value(row) })
    }

    fn place(&self, row: usize) -> (&Part, usize) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let part = self.before.partition_point(|&before| before <= row) - 1;
        (&self.parts[part], row - self.before[part])
    }
}

/// The columns of one batch, judged once.
#[derive(Clone, Debug)]
struct Part {
    keys: StringArray,
    captions: ListArray,
    texts: StringArray,
    offsets: UInt64Array,
    lengths: UInt32Array,
    formats: Vec<Format>,
    widths: UInt32Array,
    heights: UInt32Array,
    checksums: UInt64Array,
    flags: UInt32Array,
    foreign: Option<(UInt32Array, UInt32Array)>,
}

impl Part {
    fn of(key: &str, batch: &RecordBatch) -> Result<Self, TableError> {
        let unexpected = |reason: String| TableError::Unexpected { key: key.to_owned(), reason };
        let wide = |name| table::column::<UInt64Array>(key, batch, name).cloned();
        let number = |name| table::column::<UInt32Array>(key, batch, name).cloned();
        let captions = table::column::<ListArray>(key, batch, "captions")?.clone();
        let texts = captions.values().as_any().downcast_ref::<StringArray>().cloned();
        let formats = table::column::<StringArray>(key, batch, "format")?
            .iter()
            .map(|format| {
                let name = format.unwrap_or_default();
                Format::from_extension(name).ok_or_else(|| unexpected(format!("format `{name}`")))
            })
            .collect::<Result<_, _>>()?;
        let foreign = match batch.column_by_name("pass") {
            Some(_) => Some((number("pass")?, number("owner")?)),
            None => None,
        };
        Ok(Self {
            keys: table::column::<StringArray>(key, batch, "key")?.clone(),
            texts: texts.ok_or_else(|| unexpected("captions are not texts".to_owned()))?,
            captions,
            offsets: wide("offset")?,
            lengths: number("length")?,
            formats,
            widths: number("width")?,
            heights: number("height")?,
            checksums: wide("checksum")?,
            flags: number("flags")?,
            foreign,
        })
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    fn row(&self, row: usize) -> PairRow {
        let bounds = self.captions.value_offsets();
        let place = |at: i32| usize::try_from(at).expect("offsets of lists are never negative");
        let captions = place(bounds[row])..place(bounds[row + 1]);
        PairRow {
            key: self.keys.value(row).to_owned(),
            captions: captions.map(|at| self.texts.value(at).to_owned()).collect(),
            offset: self.offsets.value(row),
            length: self.lengths.value(row),
            format: self.formats[row],
            width: self.widths.value(row),
            height: self.heights.value(row),
            checksum: self.checksums.value(row),
            flags: self.flags.value(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, captions: &[&str]) -> PairRow {
        PairRow {
            key: key.to_owned(),
            captions: captions.iter().map(|&caption| caption.to_owned()).collect(),
            offset: 1 << 40,
            length: 17,
            format: Format::Webp,
            width: 1,
            height: 20_000,
            checksum: u64::MAX - 1,
            flags: FLAG_SCATTERED,
        }
    }

    #[test]
    fn an_index_reads_back_as_it_was_written() {
        let rows = vec![row("a/b", &["one", "zwei — ½"]), row("c", &["x"])];
        let bytes = encode(&rows).unwrap();
        assert_eq!(decode("k", bytes.into()).unwrap(), rows);
        assert_eq!(decode("k", encode(&[]).unwrap().into()).unwrap(), []);
    }

    #[test]
    fn a_long_index_streams_as_it_reads_at_once() {
        let all: Vec<PairRow> =
            (0..70_000).map(|at| row(&format!("k{at}"), &["a", "b"][..1 + at % 2])).collect();
        let bytes = Bytes::from(encode(&all).unwrap());
        let index = Index::read("k", bytes.clone()).unwrap();
        assert_eq!(index.len(), all.len());
        for at in [0, 1, 65_535, 65_536, 69_999] {
            assert_eq!((index.key(at), &index.row(at)), (&*all[at].key, &all[at]));
        }
        assert!(rows("k", bytes).unwrap().map(Result::unwrap).eq(all));
    }

    #[test]
    fn a_foreign_row_keeps_its_pass_and_owner() {
        let mut writer = IndexWriter::foreign(Vec::new()).unwrap();
        writer.push_foreign(row("a", &["x"]), Foreign { pass: 3, owner: 1 }).unwrap();
        let index = Index::read("k", writer.finish().unwrap().into()).unwrap();
        assert_eq!(index.foreign(0), Some(Foreign { pass: 3, owner: 1 }));
        let own = Index::read("k", encode(&[row("a", &["x"])]).unwrap().into()).unwrap();
        assert_eq!(own.foreign(0), None);
    }

    #[test]
    fn what_is_no_index_is_refused_by_name() {
        let error = decode("it", Bytes::from_static(b"PAR1 rubbish PAR1")).unwrap_err();
        assert!(error.to_string().contains("`it`"), "{error}");
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(["a"]));
        let other = table::write(vec![("key", keys)]).unwrap();
        let error = decode("it", other.into()).unwrap_err();
        assert!(error.to_string().contains("no column"), "{error}");
    }
}
