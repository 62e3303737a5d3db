//! A manifest is created once and reads back as it was.

use crate::{Store, StoreError};

pub(super) async fn all(store: &Store) {
    let value = vec!["a".to_owned(), "b".to_owned()];
    let proof = store.put_manifest("manifest/it.json", &value).await.unwrap();
    let read = store.get_manifest::<Vec<String>>("manifest/it.json").await.unwrap();
    assert_eq!(read, (value.clone(), proof));
    let again = store.put_manifest("manifest/it.json", &["c"]).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })));
    let other = store.get_manifest::<u32>("manifest/it.json").await;
    assert!(matches!(other, Err(StoreError::Malformed { .. })));
}
