//! A real etcd cluster on free ports in a folder of its own; it ends with the test.

#![allow(dead_code, reason = "several test programs share this, and none uses all of it")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where `make etcd` puts it.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/etcd/bin");

/// How long a member may take to start, on a machine that is busy.
const STARTING: Duration = Duration::from_secs(60);

/// Says why a test cannot run here.
pub(crate) fn is_here() -> bool {
    let is_here = Path::new(FOLDER).join("etcd").exists();
    if !is_here {
        eprintln!("skipped: etcd: it is not in assets/etcd; `make etcd` puts it there");
    }
    is_here
}

/// Certificates that members show and ask for.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Some members of one cluster.
pub(crate) struct Etcd {
    members: Vec<Member>,
    tls: Option<Tls>,
    pub(crate) folder: tempfile::TempDir,
}

struct Member {
    arguments: Vec<String>,
    client: String,
    metrics: u16,
    log: PathBuf,
    process: Option<Child>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
    }
}

impl Etcd {
    /// Starts `count` members and waits until all are healthy.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, None, &[])
    }

    pub(crate) fn start_with(count: usize, tls: Option<&Tls>, extra: &[&str]) -> Self {
        // Somebody else may take a port between our finding it and etcd's binding it.
        for _ in 0..5 {
            let mut etcd = Self::prepare(count, tls, extra);
            (0..count).for_each(|at| etcd.spawn(at));
            if (0..count).all(|at| etcd.wait(at)) {
                return etcd;
            }
        }
        panic!("etcd did not start; its last words stand above");
    }

    fn prepare(count: usize, tls: Option<&Tls>, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<[u16; 3]> = (0..count).map(|_| free_ports()).collect();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let peer = |at: usize| format!("http://127.0.0.1:{}", ports[at][1]);
        let cluster: Vec<String> = (0..count).map(|at| format!("m{at}={}", peer(at))).collect();
        let member = |at: usize| {
            let client = format!("{scheme}://127.0.0.1:{}", ports[at][0]);
            let metrics = ports[at][2];
            let data = folder.path().join(format!("m{at}"));
            let mut arguments: Vec<String> = vec![
                format!("--name=m{at}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={}", peer(at)),
                format!("--initial-advertise-peer-urls={}", peer(at)),
                format!("--initial-cluster={}", cluster.join(",")),
                format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"),
            ];
            if let Some(tls) = tls {
                arguments.push("--client-cert-auth".to_owned());
                arguments.push(format!("--trusted-ca-file={}", tls.ca.display()));
                arguments.push(format!("--cert-file={}", tls.cert.display()));
                arguments.push(format!("--key-file={}", tls.key.display()));
            }
            arguments.extend(extra.iter().map(|&it| it.to_owned()));
            let log = folder.path().join(format!("m{at}.log"));
            Member { arguments, client, metrics, log, process: None }
        };
        let members = (0..count).map(member).collect();
        Self { members, tls: tls.cloned(), folder }
    }

    fn spawn(&mut self, at: usize) {
        let member = &mut self.members[at];
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&member.log).unwrap();
        let mut command = Command::new(Path::new(FOLDER).join("etcd"));
        command.args(&member.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        member.process = Some(command.spawn().unwrap());
    }

    /// Whether a member becomes healthy; says its last words if it ends instead.
    fn wait(&mut self, at: usize) -> bool {
        let began = Instant::now();
        let member = &mut self.members[at];
        while !get(member.metrics, "/health").contains("\"health\":\"true\"") {
            let process = member.process.as_mut().unwrap();
            if process.try_wait().unwrap().is_some() || began.elapsed() > STARTING {
                let log = std::fs::read_to_string(&member.log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                eprintln!("etcd m{at} is not healthy: {last:#?}");
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// The member that leads etcd's own cluster.
    pub(crate) fn leader(&self) -> usize {
        let began = Instant::now();
        loop {
            let leads = |member: &Member| {
                get(member.metrics, "/metrics").contains("\netcd_server_is_leader 1\n")
            };
            // One that was stalled may believe for a moment that it still leads.
            let leading: Vec<usize> =
                (0..self.members.len()).filter(|at| leads(&self.members[*at])).collect();
            if let [at] = leading[..] {
                return at;
            }
            assert!(began.elapsed() < STARTING, "members {leading:?} lead");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGKILL; harmless if it is dead already.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    /// Starts a member that was killed, on the same ports and data, without waiting for its health.
    pub(crate) fn restart(&mut self, at: usize) {
        self.spawn(at);
    }

    pub(crate) fn wait_until_healthy(&mut self) {
        assert!((0..self.members.len()).all(|at| self.wait(at)));
    }

    pub(crate) fn signal(&self, at: usize, signal: Signal) {
        let process = self.members[at].process.as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
    }

    /// Runs etcdctl against the first member; gives what it said.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let said = self.try_ctl(arguments);
        said.unwrap_or_else(|said| panic!("etcdctl {arguments:?}: {said}"))
    }

    pub(crate) fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(Path::new(FOLDER).join("etcdctl"));
        if let Some(Tls { ca, cert, key }) = &self.tls {
            command.env("ETCDCTL_CACERT", ca).env("ETCDCTL_CERT", cert).env("ETCDCTL_KEY", key);
        }
        let said = command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.members[0].client))
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let errors = String::from_utf8_lossy(&said.stderr);
        if said.status.success() { Ok(text) } else { Err(format!("{text}{errors}")) }
    }
}

/// Client, peer and metrics.
fn free_ports() -> [u16; 3] {
    let held: [TcpListener; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|it| it.local_addr().unwrap().port())
}

/// What a plain HTTP server says, or nothing.
pub(crate) fn get(port: u16, path: &str) -> String {
    let asked = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok::<String, std::io::Error>(said)
    };
    asked().unwrap_or_default()
}
