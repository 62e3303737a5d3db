//! The network fails, and nobody notices; or somebody has to, and hears why.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use hyper::Method;

use super::proxy::{Fault, Proxy, Seen, drawn};
use super::server::{Server, open, options, send};
use super::{Abilities, conforms, pattern};
use crate::upload::PART;
use crate::{Retry, Store, StoreError, StoreOptions};

/// Little patience, so that faults pass quickly.
fn hasty(proxy: &Proxy) -> StoreOptions {
    let mut options = options(proxy.address).with_retry(Retry {
        tries: 10,
        within: Duration::from_secs(60),
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(20),
        seed: Some(1),
    });
    options.stall_timeout = Duration::from_millis(1000);
    options
}

/// A store behind a proxy that follows `plan`; nothing if there is no server.
async fn behind(
    plan: impl Fn(&Seen) -> Fault + Send + Sync + 'static,
) -> Option<(Proxy, Store, String)> {
    let server = Server::shared()?;
    let bucket = server.new_bucket().await;
    let proxy = Proxy::start(server.address, plan).await;
    let store = open(&bucket, &hasty(&proxy));
    Some((proxy, store, bucket))
}

/// Lets the first request with `method` meet `fault`, and all others pass.
fn first(method: &'static str, fault: Fault) -> impl Fn(&Seen) -> Fault + Send + Sync {
    move |seen| if seen.method == method && seen.repeat == 0 { fault } else { Fault::Pass }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_s3_store_conforms_whatever_the_network_does() {
    let mut runs = tokio::task::JoinSet::new();
    for seed in [1, 2, 3] {
        runs.spawn(async move {
            let Some((proxy, store, _)) = behind(drawn(seed)).await else { return };
            conforms(&store, Abilities { conditional_updates: true }, 6).await;
            let tally = proxy.tally();
            eprintln!("seed {seed}: {} requests: {tally:?}", proxy.seen().len());
            for fault in [Fault::CutBefore, Fault::CutAfter, Fault::CutMiddle] {
                assert!(tally.contains_key(&fault), "seed {seed} never drew {fault:?}");
            }
        });
    }
    while let Some(ended) = runs.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_creator_whose_answer_was_lost_learns_that_it_created() {
    let lost = [
        Fault::CutAfter,
        Fault::HangAfter,
        Fault::Answer(500, "InternalError"),
        Fault::Answer(503, "SlowDown"),
        Fault::CutBefore,
    ];
    for fault in lost {
        let Some((proxy, store, _)) = behind(first("PUT", fault)).await else { return };
        let value = vec![1, 2, 3];
        store.put_manifest("manifest.json", &value).await.unwrap();
        let read = store.get_manifest::<Vec<i32>>("manifest.json").await.unwrap().0;
        assert_eq!(read, value);
        let applied = matches!(fault, Fault::CutAfter | Fault::HangAfter);
        // Only a creator in doubt looks at what is there.
        let expected = if applied { "PUT PUT GET GET" } else { "PUT PUT GET" };
        assert_eq!(proxy.methods(), expected, "{fault:?}");
    }
}

#[tokio::test]
async fn a_creator_in_doubt_does_not_take_the_object_of_another_for_its_own() {
    for fault in [Fault::CutAfter, Fault::HangAfter, Fault::CutBefore] {
        let plan = move |seen: &Seen| if seen.number == 1 { fault } else { Fault::Pass };
        let Some((proxy, store, _)) = behind(plan).await else { return };
        store.put_new("it", "another's").await.unwrap();
        let late = store.put_new("it", "ours").await;
        assert!(matches!(late, Err(StoreError::AlreadyExists { .. })), "{late:?}");
        assert_eq!(proxy.methods(), "PUT PUT PUT GET", "{fault:?}");
        assert_eq!(store.get("it").await.unwrap(), "another's");
    }
}

#[tokio::test]
async fn without_doubt_equal_bytes_of_another_are_not_ours() {
    let Some((proxy, store, _)) = behind(|_| Fault::Pass).await else { return };
    store.put_new("it", "same").await.unwrap();
    let again = store.put_new("it", "same").await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
    assert_eq!(proxy.methods(), "PUT PUT");
}

#[tokio::test]
async fn an_updater_whose_answer_was_lost_learns_that_it_updated() {
    let plan = |seen: &Seen| if seen.number == 2 { Fault::CutAfter } else { Fault::Pass };
    let Some((proxy, store, _)) = behind(plan).await else { return };
    store.put("it", "1").await.unwrap();
    let version = store.version("it").await.unwrap().unwrap();
    let now = store.update("it", "2", &version).await.unwrap();
    assert_eq!(store.version("it").await.unwrap(), Some(now));
    assert_eq!(proxy.methods(), "PUT HEAD PUT PUT GET HEAD");
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_cut() {
    let Some((proxy, store, _)) = behind(first("GET", Fault::CutMiddle)).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
    let bytes = pattern(3 * PART + 9);
    std::fs::write(&source, &bytes).unwrap();
    let part = store.upload(&source, "it").await.unwrap();
    let before = proxy.seen().len();
    store.download("it", &copy, &part.sha256).await.unwrap();
    assert!(std::fs::read(&copy).unwrap() == bytes);
    // One look at the version; then each of four ranges twice, since each was cut once.
    assert_eq!(proxy.seen().len() - before, 1 + 2 * 4);
}

#[tokio::test]
async fn parts_are_put_together_once_though_the_answer_was_lost() {
    // The server forgets the upload once it is complete, as some do.
    let plan = |seen: &Seen| match (&*seen.method, seen.target.contains("uploadId="), seen.repeat) {
        ("POST", true, 0) => Fault::CutAfter,
        ("POST", true, _) => Fault::Answer(404, "NoSuchUpload"),
        _ => Fault::Pass,
    };
    let Some((proxy, store, _)) = behind(plan).await else { return };
    store.put("it", "what was there before").await.unwrap();
    let bytes = Bytes::from(pattern(2 * PART + 1));
    let mut upload = store.begin_upload("it").await.unwrap();
    upload.write_bytes(bytes.clone()).await.unwrap();
    let part = upload.finish().await.unwrap();
    assert!(store.get_verified("it", &part.sha256).await.unwrap() == bytes);
    let completions = proxy.seen().iter().filter(|seen| seen.target.contains("uploadId=")).count();
    assert_eq!(completions, 3 + 2, "three parts and two tries to put them together");
}

#[tokio::test]
async fn an_upload_that_was_not_put_together_is_not_taken_for_one() {
    let plan = |seen: &Seen| match (&*seen.method, seen.target.contains("uploadId="), seen.repeat) {
        ("POST", true, 0) => Fault::CutBefore,
        ("POST", true, _) => Fault::Answer(404, "NoSuchUpload"),
        _ => Fault::Pass,
    };
    let Some((_proxy, store, _)) = behind(plan).await else { return };
    // Of the same length as what is to replace it.
    store.put("it", vec![2; PART + 1]).await.unwrap();
    let mut upload = store.begin_upload("it").await.unwrap();
    upload.write(&vec![1; PART + 1]).await.unwrap();
    assert!(matches!(upload.finish().await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.get_range("it", 0..1).await.unwrap(), [2][..]);
}

#[tokio::test]
async fn an_upload_that_lost_a_part_cannot_be_finished() {
    let plan = |seen: &Seen| match seen.target.contains("partNumber=2") {
        true => Fault::Answer(403, "AccessDenied"),
        false => Fault::Pass,
    };
    let Some((_proxy, store, _)) = behind(plan).await else { return };
    let mut upload = store.begin_upload("it").await.unwrap();
    let mut failed = 0;
    for _ in 0..8 {
        failed += u32::from(upload.write(&pattern(PART)).await.is_err());
    }
    assert!(failed > 0);
    assert!(matches!(upload.finish().await, Err(StoreError::Malformed { .. })));
    assert_eq!(store.size("it").await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_given_up_leaves_no_parts_on_the_server() {
    let Some((_proxy, store, bucket)) = behind(first("DELETE", Fault::CutAfter)).await else {
        return;
    };
    let address = Server::shared().unwrap().address;
    let unfinished = format!("/{bucket}?uploads");
    let mut upload = store.begin_upload("it").await.unwrap();
    upload.write(&pattern(2 * PART)).await.unwrap();
    let (_, during) = send(address, Method::GET, &unfinished).await;
    assert!(during.contains("<UploadId>"), "{during}");
    upload.abort().await.unwrap();
    let (_, after) = send(address, Method::GET, &unfinished).await;
    assert!(!after.contains("<UploadId>"), "{after}");
}

#[tokio::test]
async fn a_listing_goes_on_after_the_page_that_was_cut() {
    let is_later_page = |seen: &Seen| {
        seen.target.contains("list-type=2") && seen.target.contains("continuation-token")
    };
    let plan = move |seen: &Seen| match is_later_page(seen) && seen.repeat == 0 {
        true => Fault::CutMiddle,
        false => Fault::Pass,
    };
    let Some((proxy, store, bucket)) = behind(plan).await else { return };
    let address = Server::shared().unwrap().address;
    // One more than a page holds.
    let puts = (0..1001).map(|number| format!("/{bucket}/some/prefix/list/{number:04}"));
    let mut puts = futures::stream::iter(puts)
        .map(async |target| send(address, Method::PUT, &target).await.0)
        .buffer_unordered(16);
    while let Some(status) = puts.next().await {
        assert_eq!(status, 200);
    }
    let found = store.list("list").await.unwrap();
    assert_eq!(found.len(), 1001);
    assert!(found.iter().enumerate().all(|(at, entry)| entry.key == format!("list/{at:04}")));
    // Two pages, the second of which broke; then what comes after the last key that was seen.
    assert_eq!(proxy.methods(), "GET GET GET");
    store.delete_prefix("list").await.unwrap();
    assert_eq!(store.list("list").await.unwrap(), []);
}

#[tokio::test]
async fn patience_ends_after_the_tries_that_were_set() {
    let Some((proxy, store, _)) = behind(|_| Fault::Answer(503, "SlowDown")).await else { return };
    let error = store.get("it").await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("SlowDown"), "{error}");
    assert_eq!(proxy.seen().len(), 10);
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_of_creation_is_refused_by_name() {
    // The header is lost on the way: nothing forbids the second creation.
    let Some(server) = Server::shared() else { return };
    let bucket = server.new_bucket().await;
    let proxy = Proxy::start_forgetful(server.address).await;
    let error = open(&bucket, &hasty(&proxy)).check().await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&bucket) && text.contains("If-None-Match"), "{text}");
}
