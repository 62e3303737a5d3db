//! An S3 server on this machine, for as long as the tests run.
//!
//! It is moto, which keeps everything in memory. It ends when its standard input does: however the
//! tests end, the pipe closes with them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{Store, StoreOptions};

/// Its threads take turns only where they wait, so that looking and writing are one step, as they
/// are in S3 itself.
const LAUNCH: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
sys.setswitchinterval(60)
main(['-H', '127.0.0.1', '-p', '0'])
";

pub(super) struct Server {
    pub(super) address: SocketAddr,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// The server that all tests of this process share; without one, a test says so and passes.
    pub(super) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[])).as_ref()
    }

    /// Starts a server with `variables` in its environment.
    pub(super) fn start(variables: &[(&str, &str)]) -> Option<Self> {
        let moto = match std::env::var_os("CLADE_MOTO") {
            Some(moto) => PathBuf::from(moto),
            None => concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv-s3/bin/moto_server").into(),
        };
        if !moto.exists() {
            eprintln!("skipped: {} is not there: run `make s3-venv`", moto.display());
            return None;
        }
        let mut child = Command::new(moto.with_file_name("python"))
            .args(["-c", LAUNCH])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut all = String::new();
        let address = loop {
            let begin = all.len();
            let read = said.read_line(&mut all).unwrap();
            assert!(read > 0, "moto ended before it served:\n{all}");
            if let Some((_, address)) = all[begin..].trim_end().split_once("Running on http://") {
                break address.parse().unwrap();
            }
        };
        // It writes a line per request, and must not wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Some(Self { address, child })
    }

    /// Makes a bucket that no other test uses, and says its name.
    pub(super) async fn new_bucket(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let bucket = format!("bucket-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (status, answer) = send(self.address, Method::PUT, &format!("/{bucket}")).await;
        assert_eq!(status, 200, "{answer}");
        bucket
    }
}

/// Sends a request as a stranger with a known name would.
pub(super) async fn send(address: SocketAddr, method: Method, target: &str) -> (u16, String) {
    let scope = "Credential=test/20260101/us-east-1/s3/aws4_request";
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", address.to_string())
        .header(
            "authorization",
            format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"),
        )
        .header("content-length", "0")
        .body(Full::default())
        .unwrap();
    let answer = forward(address, request).await.unwrap();
    (answer.status().as_u16(), String::from_utf8(answer.into_body().to_vec()).unwrap())
}

/// Sends a request on a connection of its own and takes in the whole answer.
pub(super) async fn forward(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

/// Settings with which `address` is spoken to, whatever the environment holds.
pub(super) fn options(address: SocketAddr) -> StoreOptions {
    StoreOptions::default()
        .without_environment()
        .with("aws_endpoint", &format!("http://{address}"))
        .with("aws_allow_http", "true")
        .with("aws_region", "us-east-1")
        .with("aws_access_key_id", "test")
        .with("aws_secret_access_key", "test")
}

/// A store in `bucket` of the server that `options` name.
pub(super) fn open(bucket: &str, options: &StoreOptions) -> Store {
    Store::open_with(&format!("s3://{bucket}/some/prefix"), options).unwrap()
}
