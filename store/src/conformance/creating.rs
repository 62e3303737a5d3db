//! Of any number of creators of one object exactly one is told that it created it.

use std::collections::BTreeSet;

use crate::{Store, StoreError};

const CREATORS: u32 = 16;

pub(super) async fn all(store: &Store, rounds: u32) {
    for round in 0..rounds {
        one_of_sixteen_creators_wins(store, &format!("race/{round}")).await;
    }
    an_object_that_is_there_is_not_created(store).await;
}

async fn one_of_sixteen_creators_wins(store: &Store, key: &str) {
    let tasks: Vec<_> = (0..CREATORS)
        .map(|number| {
            let (store, key) = (store.clone(), key.to_owned());
            tokio::spawn(async move { (number, store.put_new(&key, number.to_string()).await) })
        })
        .collect();
    let mut winners = BTreeSet::new();
    for task in tasks {
        match task.await.unwrap() {
            (number, Ok(_)) => assert!(winners.insert(number)),
            (_, Err(StoreError::AlreadyExists { key: named })) => assert_eq!(named, key),
            (_, Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(winners.len(), 1, "winners of {key}: {winners:?}");
    let kept = store.get(key).await.unwrap();
    assert_eq!(kept, winners.first().unwrap().to_string());
}

async fn an_object_that_is_there_is_not_created(store: &Store) {
    store.put("create/it", "as it was").await.unwrap();
    let again = store.put_new("create/it", "otherwise").await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
    assert_eq!(store.get("create/it").await.unwrap(), "as it was");
    store.delete("create/it").await.unwrap();
    store.put_new("create/it", "otherwise").await.unwrap();
}
