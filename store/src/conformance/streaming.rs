//! Uploads: visible whole or not at all, with the digest of what was written.

use bytes::Bytes;

use super::{open_folder, pattern};
use crate::digest::digest;
use crate::upload::PART;
use crate::{Store, StoreError};

pub(super) async fn all(store: &Store) {
    a_file_goes_in_and_out_unchanged(store).await;
    pieces_of_any_size_make_the_same_object(store).await;
    an_upload_given_up_or_dropped_leaves_nothing_visible(store).await;
    an_upload_replaces_what_was_there_at_its_end(store).await;
}

async fn a_file_goes_in_and_out_unchanged(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let (source, copy) = (folder.path().join("source"), folder.path().join("deep/copy"));
    // Empty, one byte, small, one part exactly, one byte more, and several parts.
    for size in [0, 1, 70_000, PART, PART + 1, 5 * PART + 7] {
        let bytes = pattern(size);
        std::fs::write(&source, &bytes).unwrap();
        let part = store.upload(&source, "copy/of/file").await.unwrap();
        assert_eq!(part.name, "file");
        assert_eq!((part.bytes, part.sha256), (size as u64, digest(&bytes)));
        assert_eq!(store.size("copy/of/file").await.unwrap(), Some(size as u64));
        store.download("copy/of/file", &copy, &part.sha256).await.unwrap();
        assert!(std::fs::read(&copy).unwrap() == bytes, "{size} bytes changed on the way");
    }
    let missing = store.upload(&folder.path().join("none"), "copy/none").await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    assert_eq!(store.size("copy/none").await.unwrap(), None);
}

async fn pieces_of_any_size_make_the_same_object(store: &Store) {
    let bytes = Bytes::from(pattern(2 * PART + 12_345));
    // Copied and uncopied, smaller than what is copied together, and larger than a part.
    for (step, copies) in
        [(999, true), (999, false), (300_000, true), (300_000, false), (PART + 7, false)]
    {
        let mut upload = store.begin_upload("pieces/it").await.unwrap();
        let mut left = bytes.clone();
        let mut flip = copies;
        while !left.is_empty() {
            let piece = left.split_to(step.min(left.len()));
            // Every third piece goes the other way, so that the two ways mix.
            flip = if left.len() % 3 == 0 { !flip } else { copies };
            match flip {
                true => upload.write(&piece).await.unwrap(),
                false => upload.write_bytes(piece).await.unwrap(),
            }
        }
        let part = upload.finish().await.unwrap();
        assert_eq!((part.bytes, part.sha256), (bytes.len() as u64, digest(&bytes)));
        let found = store.get_verified("pieces/it", &part.sha256).await.unwrap();
        assert!(found == bytes, "pieces of {step} bytes");
    }
}

async fn an_upload_given_up_or_dropped_leaves_nothing_visible(store: &Store) {
    for size in [10, 3 * PART + 1] {
        let bytes = Bytes::from(pattern(size));
        for gives_up in [true, false] {
            let mut upload = store.begin_upload("given/up").await.unwrap();
            upload.write_bytes(bytes.clone()).await.unwrap();
            assert_eq!(store.list("given").await.unwrap(), [], "nothing is visible on the way");
            if gives_up {
                upload.abort().await.unwrap();
            } else {
                drop(upload);
            }
            assert_eq!(store.list("given").await.unwrap(), []);
            assert_eq!(store.size("given/up").await.unwrap(), None);
        }
    }
}

async fn an_upload_replaces_what_was_there_at_its_end(store: &Store) {
    store.put("replace/it", "old").await.unwrap();
    let mut upload = store.begin_upload("replace/it").await.unwrap();
    upload.write(&pattern(PART + 5)).await.unwrap();
    assert_eq!(store.get("replace/it").await.unwrap(), "old");
    let part = upload.finish().await.unwrap();
    assert_eq!(store.size("replace/it").await.unwrap(), Some(part.bytes));
}

#[tokio::test]
async fn a_half_written_upload_is_invisible_and_goes_with_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_folder(folder.path());
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
