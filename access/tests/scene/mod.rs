//! A real tonic server behind the real guard and listener, and callers with every kind of identity.
//!
//! Its one service answers whatever RPC with an empty message, and says in metadata who asked: so
//! every RPC of the protos is called here, those too that nobody has written yet.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clade_access::client::{CallFailed, Cluster, ConnectFlags, Credentials, Link, Patience};
use clade_access::guard::{Accepts, Guard, Reason};
use clade_access::listener::{FailedHandshakes, Incoming, TlsFiles};
use clade_access::token::{Entry, Expiry, Token, TokenFile};
use clade_access::trial::Authority;
use clade_access::{Identity, Role, keep_fresh};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Request, Response, Status};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Every RPC of `clade.v1`, by its full path.
pub(crate) fn every_rpc() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let folder = root.join("clade/v1");
    let names = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path());
    let protos: Vec<_> =
        names.filter(|it| it.extension().is_some_and(|it| it == "proto")).collect();
    let set = protox::compile(&protos, [&root]).unwrap();
    let mut rpcs = Vec::new();
    for file in set.file {
        for service in &file.service {
            for method in &service.method {
                rpcs.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    assert!(rpcs.len() >= 6, "{rpcs:?}");
    rpcs
}

/// Files of one cluster: certificates of its authority and of a stranger, and tokens.
pub(crate) struct Files {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Files {
    pub(crate) fn new() -> Self {
        clade_access::install_crypto();
        let now = SystemTime::now();
        let authority = Authority::new(now, now + HOUR).unwrap();
        let files = Self { folder: tempfile::tempdir().unwrap(), authority };
        files.write("ca.pem", &files.authority.certificate());
        files.serve_as(&["localhost", "127.0.0.1"]);
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Makes the server's certificate one for these hosts.
    pub(crate) fn serve_as(&self, hosts: &[&str]) {
        let hosts: Vec<_> = hosts.iter().map(|&it| it.to_owned()).collect();
        let signed = self.authority.server(&hosts).unwrap();
        self.write("server.pem", &signed.certificate);
        self.write("server.key", &signed.key);
    }

    pub(crate) fn tls(&self, must_show: bool) -> TlsFiles {
        let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|it| self.path(it));
        TlsFiles::open(&certificate, &key, Some(&ca), must_show).unwrap()
    }

    /// Writes the token file anew.
    pub(crate) fn admit(&self, entries: &[(&Token, &str, Role, Expiry)]) {
        let entries = entries.iter().map(|&(token, name, role, expiry)| {
            Entry::new(token, name, role, expiry).unwrap().to_yaml()
        });
        let text = entries.collect::<String>();
        self.write("tokens.yaml", if text.is_empty() { "[]" } else { &text });
    }

    /// Flags of a client of this cluster without any identity.
    pub(crate) fn flags(&self, url: &str) -> ConnectFlags {
        ConnectFlags {
            coordinator: vec![url.to_owned()],
            ca: Some(self.path("ca.pem")),
            certificate: None,
            key: None,
            token_file: None,
        }
    }

    pub(crate) fn by_token(&self, url: &str, token: &str) -> ConnectFlags {
        let name = format!("{}.token", Token::draw().unwrap().digest());
        ConnectFlags { token_file: Some(self.write(&name, token)), ..self.flags(url) }
    }

    pub(crate) fn by_certificate(
        &self,
        url: &str,
        from: &Authority,
        name: &str,
        role: Role,
    ) -> ConnectFlags {
        let signed = from.client(name, role).unwrap();
        ConnectFlags {
            certificate: Some(self.write("client.pem", &signed.certificate)),
            key: Some(self.write("client.key", &signed.key)),
            ..self.flags(url)
        }
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) guard: Guard,
    pub(crate) failed_handshakes: FailedHandshakes,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(tokens: Option<TokenFile>, tls: Option<TlsFiles>) -> Self {
        let accepts = Accepts::Known { tokens: tokens.as_ref().map(TokenFile::tokens) };
        Self::serve(Guard::new(accepts, SystemTime::now), tokens, tls).await
    }

    pub(crate) async fn serve(
        guard: Guard,
        tokens: Option<TokenFile>,
        tls: Option<TlsFiles>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let failed_handshakes = FailedHandshakes::default();
        let config = tls.as_ref().map(TlsFiles::config);
        let incoming = Incoming::new(listener, config, failed_handshakes.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_fresh(tokens, tls, CancellationToken::new()));
        let served = tonic::transport::Server::builder()
            .layer(guard.clone())
            .serve_with_incoming(tower::service_fn(answer), incoming);
        tasks.spawn(async { served.await.unwrap() });
        Self { address, guard, failed_handshakes, _tasks: tasks }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn refused(&self, reason: Reason) -> u64 {
        self.guard.refusals().into_iter().find(|it| it.0 == reason).unwrap().1
    }
}

/// An empty message, and in metadata who asked. A stream of the RPC `Session` stays open.
async fn answer(
    request: http::Request<Body>,
) -> Result<http::Response<Body>, std::convert::Infallible> {
    let identity = request.extensions().get::<Identity>().expect("the guard puts it there");
    let (name, role) = (identity.name().to_owned(), identity.role().word());
    let is_stream = request.uri().path().ends_with("/Session");
    let body = if is_stream {
        Body::new(StayOpen { _request: request.into_body(), first: true })
    } else {
        let status = Status::ok("").into_http::<Body>().into_parts().0.headers;
        let message = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]));
        Body::new(http_body_util::BodyExt::with_trailers(message, async { Some(Ok(status)) }))
    };
    let response = http::Response::builder()
        .header("content-type", "application/grpc")
        .header("asked-by", name)
        .header("asked-as", role);
    Ok(response.body(body).unwrap())
}

/// One empty message, then nothing for ever.
struct StayOpen {
    _request: Body,
    first: bool,
}

impl http_body::Body for StayOpen {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        if !std::mem::take(&mut self.first) {
            return std::task::Poll::Pending;
        }
        let message = bytes::Bytes::from_static(&[0; 5]);
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(message))))
    }
}

type Codec = tonic_prost::ProstCodec<(), ()>;

/// Calls an RPC by its path with an empty message; tells who the server took the caller for.
pub(crate) async fn raw_call(link: Link, path: &str) -> Result<Response<String>, Status> {
    let mut client = tonic::client::Grpc::new(link);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let path = PathAndQuery::try_from(path).unwrap();
    let request = Request::new(tokio_stream::once(()));
    let answer = client.streaming(request, path, Codec::default()).await?;
    let word = |key| answer.metadata().get(key).unwrap().to_str().unwrap().to_owned();
    let told = format!("{} as {}", word("asked-by"), word("asked-as"));
    answer.into_inner().message().await?;
    Ok(Response::new(told))
}

/// The stream of an RPC that stays open.
pub(crate) async fn open_stream(link: Link, path: &str) -> tonic::Streaming<()> {
    let mut client = tonic::client::Grpc::new(link);
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(path).unwrap();
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(()), tokio_stream::pending());
    let answer = client.streaming(Request::new(requests), path, Codec::default()).await.unwrap();
    answer.into_inner()
}

pub(crate) async fn ask(cluster: &Cluster, path: &str) -> Result<String, CallFailed> {
    cluster.call(Patience::Once, |link| raw_call(link, path)).await
}

pub(crate) async fn ask_once(flags: &ConnectFlags, path: &str) -> Result<String, CallFailed> {
    let credentials = Credentials::read(flags).unwrap();
    ask(&Cluster::new(&flags.coordinator, credentials).unwrap(), path).await
}

/// Does `what` again until it holds; gives up after 20 s.
pub(crate) async fn until<F: Future<Output = bool>>(mut what: impl FnMut() -> F) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while !what().await {
        assert!(tokio::time::Instant::now() < limit, "it did not come to hold in 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
