//! Whoever may not come in hears so at once, and what to look at.

use std::time::{Duration, Instant};

use clade_core::job::Failure;

use super::pattern;
use super::proxy::{Fault, Proxy};
use super::server::{Server, open, options};
use crate::upload::PART;
use crate::{Store, StoreError, StoreOptions, digest};

/// Does each thing that a store can do once, and gives what came of it.
async fn everything(store: &Store) -> Vec<(&'static str, Result<(), StoreError>)> {
    let folder = tempfile::tempdir().unwrap();
    let large = async {
        let mut upload = store.begin_upload("k").await?;
        upload.write(&pattern(PART)).await?;
        upload.finish().await
    };
    vec![
        ("get", store.get("k").await.map(drop)),
        ("get_range", store.get_range("k", 0..1).await.map(drop)),
        ("put", store.put("k", "x").await.map(drop)),
        ("put_new", store.put_new("k", "x").await.map(drop)),
        ("put_manifest", store.put_manifest("k", &1).await.map(drop)),
        ("version", store.version("k").await.map(drop)),
        ("list", store.list("k").await.map(drop)),
        ("delete", store.delete("k").await),
        ("delete_prefix", store.delete_prefix("k").await),
        ("reader", store.reader("k", ..).await.map(drop)),
        ("download", store.download("k", &folder.path().join("f"), &digest(b"")).await),
        ("upload", large.await.map(drop)),
        ("check", store.check().await),
    ]
}

#[tokio::test]
async fn refused_credentials_cost_one_request_and_name_the_way_out() {
    let nowhere = "127.0.0.1:1".parse().unwrap();
    for (status, code) in [
        (403, "SignatureDoesNotMatch"),
        (403, "InvalidAccessKeyId"),
        (403, "AccessDenied"),
        (401, "Unauthorized"),
        (400, "ExpiredToken"),
    ] {
        let proxy = Proxy::start(nowhere, move |_| Fault::Answer(status, code)).await;
        let store = open("bucket", &options(proxy.address));
        let outcomes = everything(&store).await;
        for (what, outcome) in &outcomes {
            let Err(error @ StoreError::Denied { .. }) = outcome else {
                panic!("{what} met {status} {code} and gave {outcome:?}")
            };
            let text = error.to_string();
            assert!(text.contains("AWS_ACCESS_KEY_ID"), "{text}");
            assert!(text.contains("s3://bucket/some/prefix"), "{text}");
            // The answer to HEAD has no body that could say more.
            let has_body = !matches!(*what, "version" | "reader" | "download");
            assert!(!has_body || text.contains(code), "{what}: {text}");
        }
        let counted = proxy.seen().len();
        assert_eq!(counted, outcomes.len(), "{code}: {}", proxy.methods());
        for (_, outcome) in outcomes {
            assert!(matches!(Failure::from(outcome.unwrap_err()), Failure::Config { .. }));
        }
    }
}

#[tokio::test]
async fn a_server_that_knows_its_users_refuses_a_stranger() {
    let Some(server) = Server::start(&[("INITIAL_NO_AUTH_ACTION_COUNT", "0")]) else { return };
    let proxy = Proxy::start(server.address, |_| Fault::Pass).await;
    let error = open("bucket", &options(proxy.address)).check().await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    eprintln!("{error}");
    assert!(error.to_string().contains("InvalidAccessKeyId"), "{error}");
    assert_eq!(proxy.seen().len(), 1);
}

#[tokio::test]
async fn a_missing_bucket_is_named_after_one_request() {
    let Some(server) = Server::shared() else { return };
    let proxy = Proxy::start(server.address, |_| Fault::Pass).await;
    let store = open("no-such-bucket", &options(proxy.address));
    for outcome in [
        store.check().await,
        store.get("k").await.map(drop),
        store.list("k").await.map(drop),
        store.delete("k").await,
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("no-such-bucket"), "{error}");
        assert!(matches!(Failure::from(error), Failure::Config { .. }));
    }
    assert_eq!(proxy.seen().len(), 4, "{}", proxy.methods());
}

#[tokio::test]
async fn missing_credentials_are_named_before_anything_is_sent() {
    // A metadata service that takes the call and never says a word, and one that is not there.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let proxy = Proxy::start(nowhere, |_| Fault::Pass).await;
    for metadata in [silent.local_addr().unwrap(), nowhere] {
        let options = StoreOptions::default()
            .without_environment()
            .with("aws_endpoint", &format!("http://{}", proxy.address))
            .with("aws_allow_http", "true")
            .with("aws_metadata_endpoint", &format!("http://{metadata}"));
        let begun = Instant::now();
        let error = open("bucket", &options).check().await.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    assert_eq!(proxy.seen().len(), 0);
}

#[test]
fn half_a_pair_of_keys_and_an_open_endpoint_are_refused_when_opening() {
    let bare = StoreOptions::default().without_environment();
    let text = |options| Store::open_with("s3://bucket", &options).unwrap_err().to_string();
    let half = text(bare.clone().with("aws_access_key_id", "a"));
    assert!(half.contains("SecretAccessKey"), "{half}");
    let endpoint = bare.clone().with("aws_endpoint", "http://127.0.0.1:1");
    let open = text(endpoint.with("aws_access_key_id", "a").with("aws_secret_access_key", "b"));
    assert!(open.contains("AWS_ALLOW_HTTP"), "{open}");
    let unknown = text(bare.with("aws_colour", "blue"));
    assert!(unknown.contains("aws_colour"), "{unknown}");
}
