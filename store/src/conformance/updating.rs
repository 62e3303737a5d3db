//! Of any number of updaters of one version exactly one succeeds.

use super::Abilities;
use crate::{Store, StoreError};

const UPDATERS: u32 = 8;

pub(super) async fn all(store: &Store, abilities: Abilities, rounds: u32) {
    if !abilities.conditional_updates {
        return a_store_that_cannot_says_so(store).await;
    }
    for round in 0..rounds.div_ceil(4) {
        one_of_eight_updaters_wins(store, &format!("update/{round}")).await;
    }
    only_the_expected_version_is_replaced(store).await;
}

async fn a_store_that_cannot_says_so(store: &Store) {
    store.put("update/it", "1").await.unwrap();
    let version = store.version("update/it").await.unwrap().unwrap();
    let refused = store.update("update/it", "2", &version).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unusable { .. }), "{refused}");
    assert!(refused.to_string().contains("no conditional updates"), "{refused}");
    assert_eq!(store.get("update/it").await.unwrap(), "1");
}

async fn one_of_eight_updaters_wins(store: &Store, key: &str) {
    store.put(key, "begin").await.unwrap();
    let version = store.version(key).await.unwrap().unwrap();
    let updates = (0..UPDATERS).map(|number| {
        let (store, key, version) = (store.clone(), key.to_owned(), version.clone());
        tokio::spawn(
            async move { (number, store.update(&key, number.to_string(), &version).await) },
        )
    });
    let mut winners = Vec::new();
    for task in updates.collect::<Vec<_>>() {
        match task.await.unwrap() {
            (number, Ok(version)) => winners.push((number, version)),
            (_, Err(StoreError::Conflict { key: named })) => assert_eq!(named, key),
            (_, Err(error)) => panic!("{error}"),
        }
    }
    let [(number, version)] = &winners[..] else { panic!("winners of {key}: {winners:?}") };
    assert_eq!(store.get(key).await.unwrap(), number.to_string());
    assert_eq!(store.version(key).await.unwrap().as_ref(), Some(version));
}

async fn only_the_expected_version_is_replaced(store: &Store) {
    let key = "update/chain";
    store.put(key, "0").await.unwrap();
    let first = store.version(key).await.unwrap().unwrap();
    let second = store.update(key, "1", &first).await.unwrap();
    let late = store.update(key, "late", &first).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    store.update(key, "2", &second).await.unwrap();
    assert_eq!(store.get(key).await.unwrap(), "2");

    store.delete(key).await.unwrap();
    let gone = store.update(key, "3", &second).await;
    assert!(matches!(gone, Err(StoreError::Conflict { .. })), "{gone:?}");
    assert_eq!(store.version(key).await.unwrap(), None);
}
