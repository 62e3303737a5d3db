//! Every RPC of the protos with no, wrong, expired, too weak and right identity, plain and over TLS.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scene;

use std::time::SystemTime;

use clade_access::client::Cluster;
use clade_access::guard::Reason;
use clade_access::rpc::least_role;
use clade_access::token::{Expiry, Token, TokenFile};
use clade_access::trial::Authority;
use clade_access::{Role, client::Credentials};
use scene::{Files, HOUR, Server, ask, every_rpc};
use tonic::Code;

const NAMES: [&str; 4] = ["vera", "otto", "ada", "gpu7"];

fn client(flags: &clade_access::client::ConnectFlags) -> Cluster {
    Cluster::new(&flags.coordinator, Credentials::read(flags).unwrap()).unwrap()
}

#[test]
fn every_rpc_of_the_protos_is_in_the_table() {
    let missing: Vec<_> = every_rpc().into_iter().filter(|it| least_role(it).is_none()).collect();
    assert!(missing.is_empty(), "no role is said for {missing:?} in access/src/rpc.rs");
    for stranger in ["", "/", "/clade.v1.RunService/GetStatus/", "/clade.v1.RunService/getstatus"] {
        assert_eq!(least_role(stranger), None, "{stranger}");
    }
}

/// By name of the role, as the promise has it, not as the code has it.
fn is_enough(role: Role, least: Role) -> bool {
    let ladder = [Role::Viewer, Role::Operator, Role::Admin];
    let place = |role| ladder.iter().position(|it| *it == role);
    match (place(role), place(least)) {
        (Some(has), Some(needs)) => has >= needs,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

async fn check_each(cluster: &Cluster, name: &str, role: Role) {
    for rpc in every_rpc() {
        let least = least_role(&rpc).unwrap();
        let asked = ask(cluster, &rpc).await;
        if is_enough(role, least) {
            assert_eq!(asked.unwrap(), format!("{name} as {role}"), "{rpc}");
        } else {
            let failed = asked.unwrap_err();
            assert_eq!(failed.status().code(), Code::PermissionDenied, "{rpc} as {role}");
            let message = failed.status().message();
            let says = format!("takes the role {least}, and {name} has the role {role}");
            assert!(message.ends_with(&says), "{message}");
        }
    }
    let failed = ask(cluster, "/clade.v1.RunService/Everything").await.unwrap_err();
    assert_eq!(failed.status().code(), Code::Unimplemented, "what is not in the table is refused");
}

async fn check_tokens(scheme: &str, is_tls: bool) {
    let files = Files::new();
    let good: Vec<_> = Role::ALL.iter().map(|_| Token::draw().unwrap()).collect();
    let old: Vec<_> = Role::ALL.iter().map(|_| Token::draw().unwrap()).collect();
    let past = Expiry::At(SystemTime::now() - HOUR);
    let mut entries = Vec::new();
    for (place, role) in Role::ALL.into_iter().enumerate() {
        entries.push((&good[place], NAMES[place], role, Expiry::At(SystemTime::now() + HOUR)));
        entries.push((&old[place], NAMES[place], role, past));
    }
    files.admit(&entries);
    let tokens = || Some(TokenFile::open(&files.path("tokens.yaml")).unwrap());
    let start = || Server::start(tokens(), is_tls.then(|| files.tls(false)));

    let server = start().await;
    for (place, role) in Role::ALL.into_iter().enumerate() {
        let flags = files.by_token(&server.url(scheme), good[place].reveal());
        check_each(&client(&flags), NAMES[place], role).await;
    }

    for rpc in every_rpc() {
        let check = async |flags, reason, says: &str| {
            // A server of its own: failures are limited per address.
            let server = start().await;
            let flags: clade_access::client::ConnectFlags = flags;
            let flags = clade_access::client::ConnectFlags {
                coordinator: vec![server.url(scheme)],
                ..flags
            };
            let failed = ask(&client(&flags), &rpc).await.unwrap_err();
            assert_eq!(failed.status().code(), Code::Unauthenticated, "{rpc}: {says}");
            let message = failed.status().message().to_owned();
            assert!(message.contains(says), "{rpc}: {message}");
            assert_eq!(server.refused(reason), 1);
        };
        check(files.flags(""), Reason::NoIdentity, "send `authorization: Bearer TOKEN`").await;
        let wrong = Token::draw().unwrap();
        check(files.by_token("", wrong.reveal()), Reason::UnknownToken, "not known here").await;
        for token in &old {
            let flags = files.by_token("", token.reveal());
            check(flags, Reason::ExpiredToken, "expired at 20").await;
        }
    }
}

#[tokio::test]
async fn every_rpc_asks_for_a_good_token_of_a_sufficient_role_on_loopback() {
    check_tokens("http", false).await;
}

#[tokio::test]
async fn every_rpc_asks_for_a_good_token_of_a_sufficient_role_over_tls() {
    check_tokens("https", true).await;
}

#[tokio::test]
async fn every_rpc_asks_for_a_certificate_of_a_sufficient_role() {
    let files = Files::new();
    let server = Server::start(None, Some(files.tls(true))).await;
    let url = server.url("https");
    for (name, role) in NAMES.into_iter().zip(Role::ALL) {
        let flags = files.by_certificate(&url, &files.authority, name, role);
        check_each(&client(&flags), name, role).await;
    }
    let now = SystemTime::now();
    let stranger = Authority::new(now, now + HOUR).unwrap();
    for rpc in every_rpc() {
        for flags in [files.flags(&url), files.by_certificate(&url, &stranger, "ada", Role::Admin)]
        {
            let failed = ask(&client(&flags), &rpc).await.unwrap_err();
            assert_eq!(
                failed.fault(),
                clade_access::client::Fault::Tls,
                "{failed} {:?}",
                failed.status()
            );
        }
    }
}
