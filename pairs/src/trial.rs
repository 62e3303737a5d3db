//! What must hold of whatever bytes are taken for a tar or an index: for the fuzzer and for its corpus.
//!
//! Every function panics if it does not hold.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::index::{Index, PairRow, checksum, encode, rows};
use crate::scan::{ScanOptions, scan};

/// Scans `bytes` as a tar.
pub fn tar(bytes: &[u8]) {
    let mut found: Vec<PairRow> = Vec::new();
    let keep = |row| {
        found.push(row);
        Ok(())
    };
    let scan = scan(bytes, "it", ScanOptions::new(1 << 20), keep, |_, _| true)
        .expect("memory can be read")
        .expect("nobody asked it to stop");
    assert_eq!(scan.bytes, bytes.len() as u64, "it was not read to its end");
    assert_eq!(scan.sha256, clade_store::digest(bytes));
    assert_eq!(scan.pairs, found.len() as u64);
    let mut keys = BTreeSet::new();
    for row in &found {
        let start = usize::try_from(row.offset).expect("an offset within memory");
        let picture = &bytes[start..start + row.length as usize];
        assert_eq!(checksum(picture), row.checksum, "{row:?} is not its picture");
        assert!(u64::from(row.width) * u64::from(row.height) <= 1 << 20, "{row:?} is a bomb");
        assert!(!row.captions.is_empty(), "{row:?} has no caption");
        assert!(row.captions.iter().all(|it| !it.is_empty() && it.trim() == it), "{row:?}");
        assert!(is_safe(&row.key), "{row:?} leads elsewhere");
        assert!(keys.insert(&row.key), "{row:?} comes twice");
    }
    for (cause, listed) in scan.unusable.by_cause() {
        assert!(listed.count > 0 && !listed.places.is_empty(), "{cause:?} lists nothing");
        for place in &listed.places {
            assert!(place.offset <= scan.bytes, "{cause:?}: {place} lies beyond the end");
        }
    }
    // The same bytes again give the same rows, and an index holds them all.
    let index = Bytes::from(encode(&found).expect("rows can be written"));
    assert!(rows("it", index).expect("an index").map(|row| row.expect("a row")).eq(found));
}

/// Reads `bytes` as an index: it is one or it is refused.
pub fn index(bytes: &[u8]) {
    if let Ok(index) = Index::read("it", Bytes::copy_from_slice(bytes)) {
        for row in 0..index.len() {
            let _ = (index.row(row), index.foreign(row));
        }
    }
}

fn is_safe(key: &str) -> bool {
    !key.starts_with('/') && key.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
