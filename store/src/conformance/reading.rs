//! What is read is what was written: whole, in part, and of one version.

use super::pattern;
use crate::digest::digest;
use crate::{ReaderOptions, Store, StoreError};

pub(super) async fn all(store: &Store) {
    an_object_reads_back_whole_in_part_and_proved(store).await;
    a_range_is_within_the_object_or_refused(store).await;
    a_reader_hands_out_every_byte_once_and_in_order(store).await;
    an_object_replaced_during_reading_is_noticed(store).await;
    a_damaged_object_is_not_handed_out(store).await;
}

async fn an_object_reads_back_whole_in_part_and_proved(store: &Store) {
    let proof = store.put("read/it", "0123456789").await.unwrap();
    assert_eq!(proof, digest(b"0123456789"));
    assert_eq!(store.get_verified("read/it", &proof).await.unwrap(), "0123456789");
    assert_eq!(store.size("read/it").await.unwrap(), Some(10));
    assert_eq!(store.size("read/other").await.unwrap(), None);
    assert_eq!(store.version("read/other").await.unwrap(), None);
    assert!(matches!(store.get("read/other").await, Err(StoreError::NotFound { .. })));
    let before = store.version("read/it").await.unwrap().unwrap();
    assert_eq!(store.version("read/it").await.unwrap().as_ref(), Some(&before));
    store.put("read/it", "new").await.unwrap();
    assert!(matches!(
        store.get_verified("read/it", &proof).await,
        Err(StoreError::Damaged { found, .. }) if found == digest(b"new")
    ));
    let after = store.version("read/it").await.unwrap().unwrap();
    assert_ne!(before, after);
    assert_eq!(after.bytes, 3);
}

async fn a_range_is_within_the_object_or_refused(store: &Store) {
    store.put("range/it", "0123456789").await.unwrap();
    assert_eq!(store.get_range("range/it", 3..7).await.unwrap(), "3456");
    assert_eq!(store.get_range("range/it", 9..10).await.unwrap(), "9");
    assert_eq!(store.get_range("range/it", 0..10).await.unwrap(), "0123456789");
    for beyond in [8..12, 10..11, 20..24] {
        let refused = store.get_range("range/it", beyond).await;
        assert!(matches!(refused, Err(StoreError::Malformed { .. })), "{refused:?}");
    }
    let missing = store.get_range("range/none", 0..1).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{missing:?}");
    assert!(matches!(store.reader("range/it", 5..11).await, Err(StoreError::Malformed { .. })));
    assert!(matches!(store.reader("range/none", ..).await, Err(StoreError::NotFound { .. })));
}

/// Reads in steps of `chunk` bytes: the steps' lengths and all the bytes.
async fn read(
    store: &Store,
    key: &str,
    range: impl std::ops::RangeBounds<u64>,
    chunk: u64,
) -> (Vec<usize>, Vec<u8>) {
    let options = ReaderOptions { chunk, ahead: 3, version: None };
    let mut reader = store.reader_with(key, range, options).await.unwrap();
    let (mut steps, mut all) = (Vec::new(), Vec::new());
    while let Some(bytes) = reader.next().await.unwrap() {
        steps.push(bytes.len());
        all.extend_from_slice(&bytes);
    }
    assert_eq!(reader.next().await.unwrap(), None);
    (steps, all)
}

async fn a_reader_hands_out_every_byte_once_and_in_order(store: &Store) {
    let bytes = pattern(10_000);
    store.put("reader/it", bytes.clone()).await.unwrap();
    assert_eq!(read(store, "reader/it", .., 4096).await, (vec![4096, 4096, 1808], bytes.clone()));
    assert_eq!(read(store, "reader/it", .., 5000).await, (vec![5000, 5000], bytes.clone()));
    let (steps, part) = read(store, "reader/it", 999..=5000, 2000).await;
    assert_eq!(steps, [2000, 2000, 2]);
    assert_eq!(part, bytes[999..=5000]);
    assert_eq!(read(store, "reader/it", 10_000.., 7).await, (vec![], vec![]));
    store.put("reader/empty", "").await.unwrap();
    assert_eq!(read(store, "reader/empty", .., 7).await, (vec![], vec![]));
}

async fn an_object_replaced_during_reading_is_noticed(store: &Store) {
    let (first, second) = (pattern(3000), vec![7; 3000]);
    store.put("change/it", first.clone()).await.unwrap();
    let options = ReaderOptions { chunk: 1000, ahead: 1, version: None };
    let mut reader = store.reader_with("change/it", .., options.clone()).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), first[..1000]);
    store.put("change/it", second).await.unwrap();
    let changed = reader.next().await;
    assert!(
        matches!(&changed, Err(StoreError::Changed { key, offset: 1000 }) if key == "change/it"),
        "{changed:?}"
    );
    assert_eq!(reader.position(), 1000);
    assert!(reader.next().await.is_err(), "a reader that failed does not go on");

    // A shorter one, and none at all.
    let mut reader = store.reader_with("change/it", .., options.clone()).await.unwrap();
    store.put("change/it", "short").await.unwrap();
    assert!(matches!(reader.next().await, Err(StoreError::Changed { offset: 0, .. })));
    let version = store.version("change/it").await.unwrap();
    let options = ReaderOptions { version, ..options };
    let mut reader = store.reader_with("change/it", .., options).await.unwrap();
    store.delete("change/it").await.unwrap();
    assert!(matches!(reader.next().await, Err(StoreError::Changed { offset: 0, .. })));
}

async fn a_damaged_object_is_not_handed_out(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    store.put("damaged/it", "as it was").await.unwrap();
    let result = store.download("damaged/it", &target, &digest(b"as it should be")).await;
    assert!(matches!(result, Err(StoreError::Damaged { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let missing = store.download("damaged/none", &target, &digest(b"")).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}
