//! Listings are sorted and stay in their folder; removing is thorough and may be repeated.

use crate::{Entry, Store};

pub(super) async fn all(store: &Store) {
    listing_is_sorted_and_stays_in_its_folder(store).await;
    removing_is_thorough_and_repeatable(store).await;
}

async fn listing_is_sorted_and_stays_in_its_folder(store: &Store) {
    for key in ["list/b", "list/a/2", "list/a/10", "list-other/c", "list/odd name+&%.tar"] {
        store.put(key, key).await.unwrap();
    }
    let keys = |entries: Vec<Entry>| -> Vec<_> {
        entries.into_iter().map(|entry| (entry.key, entry.bytes)).collect()
    };
    let all = keys(store.list("list").await.unwrap());
    let expected = [("list/a/10", 9), ("list/a/2", 8), ("list/b", 6), ("list/odd name+&%.tar", 20)];
    assert_eq!(all, expected.map(|(key, bytes)| (key.to_owned(), bytes)));
    assert_eq!(store.get("list/odd name+&%.tar").await.unwrap(), "list/odd name+&%.tar");
    assert_eq!(store.list("nowhere").await.unwrap(), []);
    assert!(store.list("").await.unwrap().len() > all.len());
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
