//! TLS that must fail, on either side, and what the person at the client is told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scene;

use std::time::SystemTime;

use clade_access::Role;
use clade_access::client::{ConnectFlags, Fault};
use clade_access::guard::{Accepts, Guard, Reason};
use clade_access::token::{Expiry, Token, TokenFile};
use clade_access::trial::Authority;
use scene::{Files, HOUR, Server, ask_once, until};
use tonic::Code;

const STATUS: &str = "/clade.v1.RunService/GetStatus";

async fn fails_by_tls(flags: &ConnectFlags, says: &str) {
    let failed = ask_once(flags, STATUS).await.unwrap_err();
    assert_eq!(failed.fault(), Fault::Tls, "{failed}: {:?}", failed.status());
    assert!(failed.explain().contains(says), "{failed}");
}

#[tokio::test]
async fn a_client_trusts_no_server_but_the_one_it_means() {
    let files = Files::new();
    let server = Server::start(None, Some(files.tls(true))).await;
    let url = server.url("https");
    let good = files.by_certificate(&url, &files.authority, "vera", Role::Viewer);
    assert_eq!(ask_once(&good, STATUS).await.unwrap(), "vera as viewer");

    let now = SystemTime::now();
    let stranger = Authority::new(now, now + HOUR).unwrap();
    let other_ca = files.write("other.pem", &stranger.certificate());
    fails_by_tls(&ConnectFlags { ca: Some(other_ca), ..good.clone() }, "UnknownIssuer").await;
    // What this machine trusts by itself does not include a trial's authority.
    fails_by_tls(&ConnectFlags { ca: None, ..good.clone() }, "UnknownIssuer").await;

    files.serve_as(&["elsewhere.example"]);
    let server = Server::start(None, Some(files.tls(true))).await;
    let moved = ConnectFlags { coordinator: vec![server.url("https")], ..good };
    fails_by_tls(&moved, "not valid for name").await;
}

#[tokio::test]
async fn a_server_trusts_no_certificate_of_another_authority_or_of_the_past() {
    let files = Files::new();
    let server = Server::start(None, Some(files.tls(true))).await;
    let url = server.url("https");
    let now = SystemTime::now();
    let stranger = Authority::new(now, now + HOUR).unwrap();
    let forged = files.by_certificate(&url, &stranger, "ada", Role::Admin);
    fails_by_tls(&forged, "alert").await;
    fails_by_tls(&files.flags(&url), "CertificateRequired").await;

    // The authority of yesterday, trusted, with a certificate that ended an hour ago.
    let old = Authority::new(now - 24 * HOUR, now - HOUR).unwrap();
    let both = format!("{}{}", files.authority.certificate(), old.certificate());
    files.write("ca.pem", &both);
    let server = Server::start(None, Some(files.tls(true))).await;
    let expired = files.by_certificate(&server.url("https"), &old, "ada", Role::Admin);
    fails_by_tls(&expired, "CertificateExpired").await;
    until(|| async { server.failed_handshakes.count() == 1 }).await;
}

#[tokio::test]
async fn a_certificate_that_expires_on_an_open_connection_is_refused_by_the_next_call() {
    let files = Files::new();
    let late = || SystemTime::now() + 2 * HOUR;
    let guard = Guard::new(Accepts::Known { tokens: None }, late);
    let server = Server::serve(guard, None, Some(files.tls(true))).await;
    let flags = files.by_certificate(&server.url("https"), &files.authority, "ada", Role::Admin);
    let failed = ask_once(&flags, STATUS).await.unwrap_err();
    assert_eq!(failed.status().code(), Code::Unauthenticated);
    let message = failed.status().message();
    assert!(message.starts_with("the certificate of ada expired at 20"), "{message}");
    assert_eq!(server.refused(Reason::ExpiredCertificate), 1);
}

#[tokio::test]
async fn a_genuine_certificate_without_a_role_is_refused_by_name_of_what_it_lacks() {
    let files = Files::new();
    // The server's own certificate is genuine, but it is for servers and names no role.
    let server = Server::start(None, Some(files.tls(true))).await;
    let mut flags = files.flags(&server.url("https"));
    (flags.certificate, flags.key) =
        (Some(files.path("server.pem")), Some(files.path("server.key")));
    fails_by_tls(&flags, "alert").await;
    // A worker's star in another role.
    let flags = files.by_certificate(&server.url("https"), &files.authority, "*", Role::Admin);
    let failed = ask_once(&flags, STATUS).await.unwrap_err();
    assert_eq!(failed.status().code(), Code::Unauthenticated);
    assert!(failed.status().message().contains("cannot name who asks"), "{failed}");
}

#[tokio::test]
async fn the_certificate_wins_over_a_token_and_is_never_limited() {
    let files = Files::new();
    let token = Token::draw().unwrap();
    files.admit(&[(&token, "ada", Role::Admin, Expiry::Never)]);
    let tokens = TokenFile::open(&files.path("tokens.yaml")).unwrap();
    let server = Server::start(Some(tokens), Some(files.tls(false))).await;
    let url = server.url("https");
    assert_eq!(
        ask_once(&files.by_token(&url, token.reveal()), STATUS).await.unwrap(),
        "ada as admin"
    );
    let both = ConnectFlags {
        token_file: Some(files.write("token", token.reveal())),
        ..files.by_certificate(&url, &files.authority, "vera", Role::Viewer)
    };
    assert_eq!(ask_once(&both, STATUS).await.unwrap(), "vera as viewer");

    let wrong = files.by_token(&url, "clade_wrong");
    for _ in 0..20 {
        let failed = ask_once(&wrong, STATUS).await.unwrap_err();
        assert_eq!(failed.status().code(), Code::Unauthenticated);
    }
    for _ in 0..2 {
        let failed = ask_once(&wrong, STATUS).await.unwrap_err();
        assert_eq!(failed.status().code(), Code::ResourceExhausted, "{failed}");
    }
    // Whoever it was that failed: a good token from the same address is not kept waiting.
    let good = files.by_token(&url, token.reveal());
    assert_eq!(ask_once(&good, STATUS).await.unwrap(), "ada as admin");
    assert_eq!(server.refused(Reason::UnknownToken), 20);
    assert_eq!(server.refused(Reason::TooManyFailures), 2);
    assert_eq!(ask_once(&both, STATUS).await.unwrap(), "vera as viewer");
}

#[tokio::test]
async fn renewed_certificates_are_served_without_a_restart() {
    let files = Files::new();
    files.serve_as(&["elsewhere.example"]);
    let server = Server::start(None, Some(files.tls(true))).await;
    let flags = files.by_certificate(&server.url("https"), &files.authority, "vera", Role::Viewer);
    fails_by_tls(&flags, "not valid for name").await;
    files.serve_as(&["127.0.0.1"]);
    until(|| async { ask_once(&flags, STATUS).await.is_ok() }).await;
}

#[tokio::test]
async fn each_side_that_does_not_speak_tls_is_told_so() {
    let files = Files::new();
    let tls = Server::start(None, Some(files.tls(true))).await;
    let failed = ask_once(&files.flags(&tls.url("http")), STATUS).await.unwrap_err();
    assert_ne!(failed.fault(), Fault::NotLeading, "{failed}");
    let plain = Server::start(None, None).await;
    let failed = ask_once(&files.flags(&plain.url("https")), STATUS).await.unwrap_err();
    assert!(matches!(failed.fault(), Fault::Tls | Fault::Unreachable), "{failed}");
}
