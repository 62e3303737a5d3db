//! One suite for every backend: what the rest of Clade relies on.

use std::path::Path;

use crate::digest::digest;
use crate::{Store, StoreError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_conforms() {
    conforms(&Store::in_memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&open(&folder.path().join("new/store"))).await;
}

fn open(folder: &Path) -> Store {
    Store::open(&format!("file://{}", folder.display())).unwrap()
}

async fn conforms(store: &Store) {
    one_of_sixteen_creators_wins(store).await;
    an_object_reads_back_whole_in_part_and_proved(store).await;
    listing_is_sorted_and_stays_in_its_folder(store).await;
    removing_is_thorough_and_repeatable(store).await;
    a_file_goes_in_and_out_unchanged(store).await;
    a_damaged_object_is_not_handed_out(store).await;
    a_manifest_is_created_once(store).await;
}

async fn one_of_sixteen_creators_wins(store: &Store) {
    let tasks: Vec<_> = (0..16_u8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { (number, store.put_new("race/once", vec![number]).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (number, Ok(_)) => winners.push(number),
            (_, Err(StoreError::AlreadyExists { key })) => assert_eq!(key, "race/once"),
            (_, Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(store.get("race/once").await.unwrap(), winners);
}

async fn an_object_reads_back_whole_in_part_and_proved(store: &Store) {
    let proof = store.put("read/it", "0123456789").await.unwrap();
    assert_eq!(proof, digest(b"0123456789"));
    assert_eq!(store.get_verified("read/it", &proof).await.unwrap(), "0123456789");
    assert_eq!(store.get_range("read/it", 3..7).await.unwrap(), "3456");
    assert!(store.get_range("read/it", 8..12).await.is_err());
    assert_eq!(store.size("read/it").await.unwrap(), Some(10));
    assert_eq!(store.size("read/other").await.unwrap(), None);
    assert!(matches!(store.get("read/other").await, Err(StoreError::NotFound { .. })));
    store.put("read/it", "new").await.unwrap();
    assert!(matches!(
        store.get_verified("read/it", &proof).await,
        Err(StoreError::Damaged { found, .. }) if found == digest(b"new")
    ));
}

async fn listing_is_sorted_and_stays_in_its_folder(store: &Store) {
    for key in ["list/b", "list/a/2", "list/a/10", "list-other/c"] {
        store.put(key, key).await.unwrap();
    }
    let keys = |entries: Vec<crate::Entry>| -> Vec<_> {
        entries.into_iter().map(|entry| (entry.key, entry.bytes)).collect()
    };
    let all = keys(store.list("list").await.unwrap());
    assert_eq!(all, [("list/a/10".into(), 9), ("list/a/2".into(), 8), ("list/b".into(), 6)]);
    assert_eq!(store.list("nowhere").await.unwrap(), []);
}

async fn removing_is_thorough_and_repeatable(store: &Store) {
    for key in ["remove/a/x", "remove/a/y/z", "remove/b"] {
        store.put(key, "x").await.unwrap();
    }
    for _ in 0..2 {
        store.delete_prefix("remove/a").await.unwrap();
        let left = store.list("remove").await.unwrap();
        assert_eq!(left.iter().map(|entry| &*entry.key).collect::<Vec<_>>(), ["remove/b"]);
    }
    for _ in 0..2 {
        store.delete("remove/b").await.unwrap();
        assert_eq!(store.list("remove").await.unwrap(), []);
    }
}

async fn a_file_goes_in_and_out_unchanged(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let (source, copy) = (folder.path().join("source"), folder.path().join("deep/copy"));
    // Empty, small, one part exactly, and three parts.
    for size in [0, 5, 8 << 20, (16 << 20) + 7] {
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        std::fs::write(&source, &bytes).unwrap();
        let part = store.upload(&source, "copy/of/file").await.unwrap();
        assert_eq!(part.name, "file");
        assert_eq!((part.bytes, part.sha256), (size, digest(&bytes)));
        assert_eq!(store.size("copy/of/file").await.unwrap(), Some(size));
        store.download("copy/of/file", &copy, &part.sha256).await.unwrap();
        assert!(std::fs::read(&copy).unwrap() == bytes, "{size} bytes changed on the way");
    }
    let missing = store.upload(&folder.path().join("none"), "copy/none").await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    assert_eq!(store.size("copy/none").await.unwrap(), None);
}

async fn a_damaged_object_is_not_handed_out(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    store.put("damaged/it", "as it was").await.unwrap();
    let result = store.download("damaged/it", &target, &digest(b"as it should be")).await;
    assert!(matches!(result, Err(StoreError::Damaged { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

async fn a_manifest_is_created_once(store: &Store) {
    let value = vec!["a".to_owned(), "b".to_owned()];
    let proof = store.put_manifest("manifest/it.json", &value).await.unwrap();
    let read = store.get_manifest::<Vec<String>>("manifest/it.json").await.unwrap();
    assert_eq!(read, (value.clone(), proof));
    let again = store.put_manifest("manifest/it.json", &value).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })));
    let other = store.get_manifest::<u32>("manifest/it.json").await;
    assert!(matches!(other, Err(StoreError::Malformed { .. })));
}

#[tokio::test]
async fn a_half_written_upload_is_invisible_and_goes_with_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // What a writer killed in the middle leaves behind.
    let mut upload =
        object_store::ObjectStoreExt::put_multipart(&*store.backend, &"run/try-1/tar".into())
            .await
            .unwrap();
    upload.put_part("half".into()).await.unwrap();
    let left = std::fs::read_dir(folder.path().join("run/try-1")).unwrap().count();
    assert_eq!(left, 1, "the half-written file lies beside its place");
    std::mem::forget(upload);

    assert_eq!(store.list("run").await.unwrap(), []);
    assert_eq!(store.size("run/try-1/tar").await.unwrap(), None);
    store.delete_prefix("run/try-1").await.unwrap();
    assert!(!folder.path().join("run/try-1").exists());
}

#[test]
fn an_address_of_another_kind_is_refused_with_a_way_out() {
    for uri in ["s3://bucket/a", "file:relative", "/just/a/path", "file://relative"] {
        let error = Store::open(uri).unwrap_err().to_string();
        assert!(error.contains(uri) && error.contains("file:///"), "{error}");
    }
}
