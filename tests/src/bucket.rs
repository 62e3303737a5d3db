//! An S3 server on this machine, for as long as a test runs: moto, which keeps everything in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

/// It ends when its standard input does: however the test ends, the pipe closes with it.
const LAUNCH: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
sys.setswitchinterval(60)
main(['-H', '127.0.0.1', '-p', '0'])
";

fn environment_at(address: &str) -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ]
}

/// A running server with one bucket, `clade`.
#[derive(Debug)]
pub struct Bucket {
    address: SocketAddr,
    child: Child,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn python() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv-s3/bin/python").into()
}

impl Bucket {
    /// Why there can be no server on this machine, if so.
    pub fn missing() -> Option<String> {
        let python = python();
        let why = || format!("{} is not there: run `make s3-venv`", python.display());
        (!python.exists()).then(why)
    }

    pub fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(python())
            .args(["-c", LAUNCH])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(child.stderr.take().context("a piped standard error")?);
        let address = loop {
            let mut line = String::new();
            ensure!(said.read_line(&mut line)? > 0, "moto ended before it served");
            if let Some((_, address)) = line.trim_end().split_once("Running on http://") {
                break address.parse()?;
            }
        };
        // It writes a line per request, and must not wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let bucket = Self { address, child };
        let answer = bucket.send("PUT", "/clade", &[])?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        Ok(bucket)
    }

    /// What a process must have in its environment to be let in.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        environment_at(&self.address.to_string())
    }

    /// The same for whoever comes through a proxy at `address`.
    pub fn environment_at(&self, address: &str) -> Vec<(String, String)> {
        let variables = environment_at(address).into_iter();
        variables.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts a file into the bucket.
    pub fn put(&self, key: &str, file: &Path) -> anyhow::Result<()> {
        let answer = self.send("PUT", &format!("/clade/{key}"), &std::fs::read(file)?)?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// The keys of the bucket that begin with `prefix`; a thousand at most.
    pub fn list(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let answer = self.send("GET", &format!("/clade?list-type=2&prefix={prefix}"), &[])?;
        let text = String::from_utf8(answer)?;
        ensure!(text.contains("<IsTruncated>false"), "more than a thousand keys");
        let keys = text.split("<Key>").skip(1);
        Ok(keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect())
    }

    /// The content of an object.
    pub fn get(&self, key: &str) -> anyhow::Result<Vec<u8>> {
        let answer = self.send("GET", &format!("/clade/{key}"), &[])?;
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").context("an HTTP answer")?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "no {key}");
        Ok(answer[end + 4..].to_vec())
    }

    fn send(&self, method: &str, target: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address)?;
        let scope = "Credential=test/20260101/us-east-1/s3/aws4_request";
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\
             authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0\r\n\r\n",
            self.address,
            body.len()
        )?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}
