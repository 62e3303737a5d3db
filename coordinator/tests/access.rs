//! A real coordinator that asks who calls: every RPC, and what a worker's identity lets it say.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod cluster;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clade_access::Role;
use clade_access::client::{Cluster, ConnectFlags, Credentials, Fault, Link, Patience};
use clade_access::rpc::least_role;
use clade_access::token::{Entry, Expiry, Token};
use clade_access::trial::Authority;
use clade_proto::v1::rank_exited::Outcome;
use clade_proto::v1::run_service_client::RunServiceClient;
use clade_proto::v1::session_request::Report;
use clade_proto::v1::session_response::Order;
use clade_proto::v1::worker_service_client::WorkerServiceClient;
use clade_proto::v1::{self, RefusalReason, SessionRequest, SessionResponse};
use cluster::coordinator::Coordinator;
use cluster::{counted, until};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

const HOUR: Duration = Duration::from_secs(3600);
const NAMES: [&str; 4] = ["vera", "otto", "ada", "gpu7"];

/// Every RPC of `clade.v1`, by its full path.
fn every_rpc() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let files = std::fs::read_dir(root.join("clade/v1")).unwrap().map(|it| it.unwrap().path());
    let protos: Vec<PathBuf> =
        files.filter(|it| it.extension().is_some_and(|it| it == "proto")).collect();
    let mut rpcs = Vec::new();
    for file in protox::compile(&protos, [&root]).unwrap().file {
        for service in &file.service {
            let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            rpcs.extend(service.method.iter().map(|method| path(method.name())));
        }
    }
    assert!(rpcs.len() >= 11, "{rpcs:?}");
    rpcs
}

/// One cluster's certificates and tokens.
struct Place {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Place {
    fn new() -> Self {
        clade_access::install_crypto();
        let now = SystemTime::now();
        let authority = Authority::new(now, now + HOUR).unwrap();
        let place = Self { folder: tempfile::tempdir().unwrap(), authority };
        let server = place.authority.server(&["127.0.0.1".to_owned()]).unwrap();
        place.write("ca.pem", &place.authority.certificate());
        place.write("server.pem", &server.certificate);
        place.write("server.key", &server.key);
        place
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn file(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.folder.path().join(name).display())
    }

    fn admit(&self, entries: &[(&Token, &str, Role, Expiry)]) {
        let entries = entries.iter().map(|&(token, name, role, expiry)| {
            Entry::new(token, name, role, expiry).unwrap().to_yaml()
        });
        let text = entries.collect::<String>();
        self.write("tokens.yaml", if text.is_empty() { "[]" } else { &text });
    }

    /// Starts a coordinator of its own state, and waits until it leads; the port of its metrics, too.
    async fn start(&self, scheme: &str, flags: &[&str]) -> (Coordinator, u16) {
        let state = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let state = format!("--state={}", state.display());
        let [cert, key] = [self.file("tls-cert", "server.pem"), self.file("tls-key", "server.key")];
        let tls: &[&str] = if scheme == "https" { &[&cert, &key] } else { &[] };
        let arguments = [flags, tls, &[&state]].concat();
        let coordinator = Coordinator::start_as(scheme, self.folder.path(), &arguments);
        let port = coordinator.probes;
        until("it leads", async || {
            let text = cluster::etcd::get(port, "/metrics");
            text.contains("clade_leadership_is_leader 1").then_some(())
        })
        .await;
        (coordinator, port)
    }

    fn nobody(&self, url: &str) -> ConnectFlags {
        ConnectFlags {
            coordinator: vec![url.to_owned()],
            ca: Some(self.folder.path().join("ca.pem")),
            certificate: None,
            key: None,
            token_file: None,
        }
    }

    fn by_token(&self, url: &str, token: &str) -> ConnectFlags {
        let name = format!("{}.token", Token::draw().unwrap().digest());
        ConnectFlags { token_file: Some(self.write(&name, token)), ..self.nobody(url) }
    }

    fn by_certificate(&self, url: &str, from: &Authority, name: &str, role: Role) -> ConnectFlags {
        let signed = from.client(name, role).unwrap();
        let [certificate, key] = [("pem", signed.certificate), ("key", signed.key)]
            .map(|(end, text)| Some(self.write(&format!("client-{name}.{end}"), &text)));
        ConnectFlags { certificate, key, ..self.nobody(url) }
    }
}

fn cluster_of(flags: &ConnectFlags) -> Cluster {
    Cluster::new(&flags.coordinator, Credentials::read(flags).unwrap()).unwrap()
}

async fn link(flags: &ConnectFlags) -> Link {
    cluster_of(flags).next_channel().await.unwrap().link
}

/// Calls an RPC with an empty message, whatever it is.
async fn call(link: Link, path: String) -> Result<tonic::Response<()>, Status> {
    let mut client = tonic::client::Grpc::new(link);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let request = Request::new(tokio_stream::once(()));
    let path = PathAndQuery::try_from(path).unwrap();
    let mut answer = client.streaming(request, path, codec).await?.into_inner();
    answer.message().await.map(|_| tonic::Response::new(()))
}

async fn code(link: &Link, path: &str) -> Code {
    let called = call(link.clone(), path.to_owned()).await;
    called.map_or_else(|status| status.code(), |_| Code::Ok)
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

/// Every RPC by an identity of this role: what it may not is refused, what it may gets an answer of the
/// service itself, which has something to say about an empty message.
async fn check_role(flags: &ConnectFlags, role: Role) {
    let link = link(flags).await;
    for rpc in every_rpc() {
        let code = code(&link, &rpc).await;
        if is_enough(role, least_role(&rpc).unwrap()) {
            let answers = [Code::Ok, Code::InvalidArgument, Code::NotFound];
            assert!(answers.contains(&code), "{rpc} as {role}: {code:?}");
        } else {
            assert_eq!(code, Code::PermissionDenied, "{rpc} as {role}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_of_a_real_coordinator_asks_for_a_good_token_of_a_sufficient_role() {
    let place = Place::new();
    let (mut good, mut entries) = (Vec::new(), Vec::new());
    let old = Token::draw().unwrap();
    good.extend(Role::ALL.iter().map(|_| Token::draw().unwrap()));
    for ((token, name), role) in good.iter().zip(NAMES).zip(Role::ALL) {
        entries.push((token, name, role, Expiry::At(SystemTime::now() + HOUR)));
    }
    entries.push((&old, "ada", Role::Admin, Expiry::At(SystemTime::now() - HOUR)));
    place.admit(&entries);
    let tokens = place.file("tokens", "tokens.yaml");
    let (coordinator, port) = place.start("https", &[&tokens]).await;
    for (token, role) in good.iter().zip(Role::ALL) {
        check_role(&place.by_token(&coordinator.url, token.reveal()), role).await;
    }
    let rpcs = every_rpc();
    let too_weak = |rpc: &String| {
        Role::ALL.iter().filter(|&&role| !is_enough(role, least_role(rpc).unwrap())).count()
    };
    // They are passed on to the metrics every second.
    let count = async |port: u16, reason: &str, expected: usize| {
        let expected = u64::try_from(expected).unwrap();
        until("refusals are counted", async || {
            (counted(port, "access_refusals", reason) == expected).then_some(())
        })
        .await;
    };
    count(port, "too_weak", rpcs.iter().map(too_weak).sum()).await;

    let wrong = Token::draw().unwrap();
    for (token, reason) in
        [(None, "no_identity"), (Some(&wrong), "unknown_token"), (Some(&old), "expired_token")]
    {
        // One of its own: further failures of an address are no longer told apart.
        let (coordinator, port) = place.start("https", &[&tokens]).await;
        let flags = match token {
            None => place.nobody(&coordinator.url),
            Some(token) => place.by_token(&coordinator.url, token.reveal()),
        };
        let link = link(&flags).await;
        for rpc in &rpcs {
            assert_eq!(code(&link, rpc).await, Code::Unauthenticated, "{rpc}: {reason}");
        }
        count(port, reason, rpcs.len()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_of_a_real_coordinator_asks_for_a_certificate_of_a_sufficient_role() {
    let place = Place::new();
    let (coordinator, _) = place.start("https", &[&place.file("client-ca", "ca.pem")]).await;
    let url = &coordinator.url;
    for (name, role) in NAMES.into_iter().zip(Role::ALL) {
        check_role(&place.by_certificate(url, &place.authority, name, role), role).await;
    }
    let now = SystemTime::now();
    let stranger = Authority::new(now, now + HOUR).unwrap();
    for flags in [place.nobody(url), place.by_certificate(url, &stranger, "ada", Role::Admin)] {
        for rpc in every_rpc() {
            let cluster = cluster_of(&flags);
            let asked = cluster.call(Patience::Once, |link| call(link, rpc.clone())).await;
            // The server ends the handshake after the client thinks it done: what is read first is chance.
            let fault = asked.unwrap_err().fault();
            assert!(matches!(fault, Fault::Tls | Fault::NoAnswer), "{rpc}: {fault:?}");
        }
    }
}

/// A stream that begins with this greeting.
async fn greet(
    link: Link,
    worker: &str,
    node: &str,
) -> (mpsc::Sender<SessionRequest>, Streaming<SessionResponse>) {
    let hello = v1::Hello {
        worker: worker.to_owned(),
        node: node.to_owned(),
        host: "host".to_owned(),
        pid: 1,
        slots: 1,
        protocol: clade_proto::PROTOCOL,
        secret: vec![7; 16],
        ..v1::Hello::default()
    };
    loop {
        let (reports, sent) = mpsc::channel(64);
        let report = Some(Report::Hello(hello.clone()));
        reports.send(SessionRequest { sequence: 0, report }).await.unwrap();
        let mut client = WorkerServiceClient::new(link.clone());
        match client.session(ReceiverStream::new(sent)).await {
            Ok(opened) => return (reports, opened.into_inner()),
            // It does not lead yet.
            Err(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
            Err(status) => panic!("{status:?}"),
        }
    }
}

async fn first_order(link: Link, worker: &str, node: &str) -> Order {
    let (_reports, mut orders) = greet(link, worker, node).await;
    orders.message().await.unwrap().unwrap().order.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_speaks_for_itself_and_for_its_own_node() {
    let place = Place::new();
    let tokens = [(); 3].map(|()| Token::draw().unwrap());
    let [own, shared, any] = &tokens;
    let entry =
        |token, name| Entry::new(token, name, Role::Worker, Expiry::Never).unwrap().to_yaml();
    let pool = entry(shared, "pool") + "  nodes: any\n";
    place.write("tokens.yaml", &[entry(own, "gpu7"), pool, entry(any, "*")].concat());
    let (coordinator, port) = place.start("http", &[&place.file("tokens", "tokens.yaml")]).await;
    let mut links = Vec::new();
    for token in &tokens {
        links.push(link(&place.by_token(&coordinator.url, token.reveal())).await);
    }
    for (who, worker, node) in [
        (0, "gpu7-1", "gpu7"),
        (0, "gpu7-2", "gpu7-b"),
        (1, "pool-1", "gpu7"),
        (1, "pool-2", "ip-10-0-0-1"),
        (2, "gpu8-1", "gpu9"),
    ] {
        let order = first_order(links[who].clone(), worker, node).await;
        assert!(matches!(order, Order::Welcome(_)), "{worker} on {node}: {order:?}");
    }
    let mut turned_away = 0;
    for (who, worker, node, says) in [
        (0, "gpu8-9", "gpu7", "may not speak for worker `gpu8-9`"),
        (0, "gpu71", "gpu7", "may not speak for"),
        (0, "gpu7-9", "gpu8", "may not claim node `gpu8`"),
        (0, "gpu7-9", "gpu71", "may not claim"),
        (1, "gpu7-9", "gpu7", "may not speak for"),
    ] {
        let Order::Refused(refused) = first_order(links[who].clone(), worker, node).await else {
            panic!("{worker} on {node} was taken");
        };
        assert_eq!(refused.reason(), RefusalReason::Identity);
        assert!(refused.message.contains(says), "{}", refused.message);
        turned_away += 1;
    }
    assert_eq!(counted(port, "schedule_refusals", "identity"), turned_away);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_says_after_its_token_was_withdrawn_changes_nothing() {
    let place = Place::new();
    let [gpu7, otto] = [(); 2].map(|()| Token::draw().unwrap());
    let stays = (&otto, "otto", Role::Operator, Expiry::Never);
    place.admit(&[stays, (&gpu7, "gpu7", Role::Worker, Expiry::Never)]);
    let (coordinator, _) = place.start("http", &[&place.file("tokens", "tokens.yaml")]).await;
    let worker = link(&place.by_token(&coordinator.url, gpu7.reveal())).await;
    let operator = link(&place.by_token(&coordinator.url, otto.reveal())).await;
    let mut operator = RunServiceClient::new(operator);
    let (reports, mut orders) = greet(worker, "gpu7-1", "gpu7").await;
    let mut document = cluster::document(place.folder.path(), "run", 1);
    document.queue = true;
    operator.apply_run(document).await.unwrap();
    let start = loop {
        if let Some(Order::StartRank(start)) = orders.message().await.unwrap().unwrap().order {
            break start;
        }
    };

    place.admit(&[stays]);
    let ended = loop {
        let beat = Some(Report::Heartbeat(v1::Heartbeat {}));
        reports.send(SessionRequest { sequence: 0, report: beat }).await.unwrap();
        match tokio::time::timeout(Duration::from_millis(500), orders.message()).await {
            Ok(Ok(_)) | Err(_) => (),
            Ok(Err(status)) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    // A client may go on as if it had not heard.
    let done = Outcome::Done(v1::Done::default());
    let v1::StartRank { fence, rank, slot, .. } = start.clone();
    let exited = v1::RankExited { fence, rank, slot, outcome: Some(done) };
    let report = Some(Report::RankExited(exited));
    reports.send(SessionRequest { sequence: 1, report }).await.ok();
    until("the worker is lost, whatever it still says", async || {
        let beat = Some(Report::Heartbeat(v1::Heartbeat {}));
        reports.send(SessionRequest { sequence: 0, report: beat }).await.ok();
        let status = operator.get_status(v1::GetStatusRequest::default()).await.unwrap();
        status.into_inner().workers.is_empty().then_some(())
    })
    .await;
    let request = v1::ListJobsRequest { run: "run".to_owned(), ..v1::ListJobsRequest::default() };
    let jobs = operator.list_jobs(request).await.unwrap().into_inner().jobs;
    let work = start.fence.unwrap().work;
    let job = jobs.iter().find(|job| job.work == work).unwrap();
    assert_ne!(job.phase, "done", "{job:?}");
}
