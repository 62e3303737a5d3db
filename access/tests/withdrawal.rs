//! Tokens that are withdrawn while the server runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scene;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use clade_access::Role;
use clade_access::client::{Cluster, Credentials};
use clade_access::guard::{Accepts, Guard, Reason};
use clade_access::token::{Expiry, Token, TokenFile};
use scene::{Files, HOUR, Server, ask_once, open_stream, until};
use tonic::Code;

const STATUS: &str = "/clade.v1.RunService/GetStatus";
const SESSION: &str = "/clade.v1.WorkerService/Session";

fn tokens(files: &Files) -> Option<TokenFile> {
    Some(TokenFile::open(&files.path("tokens.yaml")).unwrap())
}

#[tokio::test]
async fn a_token_taken_out_of_the_file_is_refused_without_a_restart_and_others_stay() {
    let files = Files::new();
    let (ada, vera) = (Token::draw().unwrap(), Token::draw().unwrap());
    let keep = (&ada, "ada", Role::Admin, Expiry::Never);
    files.admit(&[keep, (&vera, "vera", Role::Viewer, Expiry::Never)]);
    let server = Server::start(tokens(&files), None).await;
    let url = server.url("http");
    let (ada, vera) = (files.by_token(&url, ada.reveal()), files.by_token(&url, vera.reveal()));
    assert_eq!(ask_once(&vera, STATUS).await.unwrap(), "vera as viewer");

    // A broken file in between: everything stays as it was.
    files.write("tokens.yaml", "- name: [");
    assert_eq!(ask_once(&vera, STATUS).await.unwrap(), "vera as viewer");

    files.admit(&[keep]);
    until(|| async { ask_once(&vera, STATUS).await.is_err() }).await;
    let failed = ask_once(&vera, STATUS).await.unwrap_err();
    assert_eq!(failed.status().code(), Code::Unauthenticated);
    assert_eq!(ask_once(&ada, STATUS).await.unwrap(), "ada as admin");
}

#[tokio::test]
async fn a_workers_stream_ends_when_its_token_is_withdrawn() {
    let files = Files::new();
    let gpu7 = Token::draw().unwrap();
    files.admit(&[(&gpu7, "gpu7", Role::Worker, Expiry::Never)]);
    let server = Server::start(tokens(&files), None).await;
    let flags = files.by_token(&server.url("http"), gpu7.reveal());
    let cluster = Cluster::new(&flags.coordinator, Credentials::read(&flags).unwrap()).unwrap();
    let mut orders = open_stream(cluster.next_channel().await.unwrap().link, SESSION).await;
    assert_eq!(orders.message().await.unwrap(), Some(()));
    files.admit(&[]);
    let ended = tokio::time::timeout(Duration::from_secs(20), orders.message()).await.unwrap();
    let status = ended.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().starts_with("the token was withdrawn"), "{status}");
    assert_eq!(server.refused(Reason::Withdrawn), 1);
}

#[tokio::test]
async fn a_workers_stream_ends_when_its_token_expires() {
    let files = Files::new();
    let gpu7 = Token::draw().unwrap();
    let (start, passed) = (SystemTime::now(), Arc::new(AtomicU64::new(0)));
    // Ends as soon as the clock is set forward.
    files.admit(&[(&gpu7, "gpu7", Role::Worker, Expiry::At(start + HOUR))]);
    let file = tokens(&files).unwrap();
    let clock = {
        let passed = Arc::clone(&passed);
        move || start + Duration::from_secs(passed.load(Ordering::Relaxed))
    };
    let guard = Guard::new(Accepts::Known { tokens: Some(file.tokens()) }, clock);
    let server = Server::serve(guard, Some(file), None).await;
    let flags = files.by_token(&server.url("http"), gpu7.reveal());
    let cluster = Cluster::new(&flags.coordinator, Credentials::read(&flags).unwrap()).unwrap();
    let mut orders = open_stream(cluster.next_channel().await.unwrap().link, SESSION).await;
    assert_eq!(orders.message().await.unwrap(), Some(()));
    passed.store(2 * HOUR.as_secs(), Ordering::Relaxed);
    // A change of the list makes it look at the clock before its time.
    let other = Token::draw().unwrap();
    let entry = (&gpu7, "gpu7", Role::Worker, Expiry::At(start + HOUR));
    files.admit(&[entry, (&other, "gpu8", Role::Worker, Expiry::Never)]);
    let ended = tokio::time::timeout(Duration::from_secs(20), orders.message()).await.unwrap();
    let status = ended.unwrap_err();
    assert!(status.message().starts_with("the token of gpu7 expired at"), "{status}");
    assert_eq!(server.refused(Reason::ExpiredToken), 1);
}
