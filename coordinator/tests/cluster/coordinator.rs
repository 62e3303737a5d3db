//! One `clade-coordinator` process; it ends with the test.

#![allow(dead_code, reason = "several test programs share this, and none uses all of it")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clade_proto::v1;
use clade_proto::v1::run_service_client::RunServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub(crate) struct Coordinator {
    process: Child,
    pub(crate) url: String,
    /// Port of its metrics and probes.
    pub(crate) probes: u16,
    log: PathBuf,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.url, self.log());
        }
    }
}

impl Coordinator {
    pub(crate) fn on_etcd(folder: &Path, etcd: &[String]) -> Self {
        Self::start(folder, &[&format!("--etcd={}", etcd.join(","))])
    }

    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_as("http", folder, &[&["--no-auth"], arguments].concat())
    }

    /// Starts one that asks who calls, as the arguments say.
    pub(crate) fn start_as(scheme: &str, folder: &Path, arguments: &[&str]) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, probes] = listeners.map(|listener| listener.local_addr().unwrap());
        let log = folder.join(format!("coordinator-{}.log", address.port()));
        let process = Command::new(env!("CARGO_BIN_EXE_clade-coordinator"))
            .arg(format!("--listen={address}"))
            .arg(format!("--metrics-listen={probes}"))
            .args(arguments)
            .env("CLADE_LOG", "info")
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process, url: format!("{scheme}://{address}"), probes: probes.port(), log }
    }

    /// Three on one etcd.
    pub(crate) fn three(folder: &Path, etcd: &[String]) -> Vec<Self> {
        (0..3).map(|_| Self::on_etcd(folder, etcd)).collect()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it tells Prometheus or the kubelet, head and all.
    pub(crate) fn probe(&self, path: &str) -> String {
        super::etcd::get(self.probes, path)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits for its end; gives whether it was content.
    pub(crate) fn wait(&mut self) -> bool {
        self.process.wait().unwrap().success()
    }

    pub(crate) async fn client(&self) -> Result<RunServiceClient<Channel>, Status> {
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        let endpoint = endpoint.timeout(Duration::from_secs(30));
        let channel = endpoint.connect().await;
        channel.map(RunServiceClient::new).map_err(|error| Status::unavailable(error.to_string()))
    }

    pub(crate) async fn status(&self) -> Result<v1::GetStatusResponse, Status> {
        let request = v1::GetStatusRequest::default();
        Ok(self.client().await?.get_status(request).await?.into_inner())
    }

    pub(crate) async fn apply(&self, request: v1::ApplyRunRequest) -> Result<(), Status> {
        self.client().await?.apply_run(request).await.map(drop)
    }

    pub(crate) async fn cancel(&self, run: &str) -> Result<(), Status> {
        let request = v1::CancelRunRequest { run: run.to_owned() };
        self.client().await?.cancel_run(request).await.map(drop)
    }

    /// Whether it decides: only a leader knows that there is no such run.
    pub(crate) async fn leads(&self) -> bool {
        self.cancel("nobody").await.is_err_and(|status| status.code() == Code::NotFound)
    }
}
