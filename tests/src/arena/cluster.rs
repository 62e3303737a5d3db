//! Three coordinators on three members of etcd, four workers of one seat each, a bucket behind a proxy, and
//! the command `clade` at the hub. TLS and tokens are on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::etcd::Etcd;
use super::metrics;
use super::network::{HUB, Machine, small_disk, take_disk};
use super::proxy::Proxy;
use super::service::Service;
use crate::bucket::Bucket;
use crate::system::{clade, programs, wait_for};

const SERVE: u16 = 7600;
const METRICS: u16 = 7700;
const WORKER_DISK_MIB: u32 = 400;
pub const WORKERS: u8 = 4;

#[derive(Debug)]
pub struct Cluster {
    pub folder: PathBuf,
    pub etcd: Etcd,
    pub coordinators: Vec<Service>,
    pub workers: Vec<Service>,
    /// Folders of the workers, each a small disk.
    pub disks: Vec<PathBuf>,
    /// Before each coordinator.
    pub doors: Vec<Proxy>,
    /// Before the bucket.
    pub store: Proxy,
    pub bucket: Bucket,
    client: Vec<(String, String)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let services = self.workers.iter_mut().chain(&mut self.coordinators);
        services.chain(&mut self.etcd.members).for_each(Service::kill);
        self.disks.iter().chain(&self.etcd.disks).for_each(|disk| take_disk(disk));
    }
}

fn tell(arguments: &[&str]) -> anyhow::Result<String> {
    let done = clade()?.args(arguments).output()?;
    ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}

impl Cluster {
    /// Starts everything, and waits until all workers have joined.
    pub fn start(folder: &Path, seed: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let etcd = Etcd::start(folder)?;
        let path = |name: &str| folder.join(name).display().to_string();
        tell(&["certs", "new", "--out", &path("certs"), "--host", HUB])?;
        let token = |name: &str, role: &str| {
            let file = path("tokens.yaml");
            tell(&[
                "token",
                "new",
                "--name",
                name,
                "--role",
                role,
                "--expires",
                "1d",
                "--file",
                &file,
            ])
        };
        let (operator, worker) = (token("chaos", "admin")?, token("*", "worker")?);

        let mut coordinators = Vec::new();
        let mut doors = Vec::new();
        for at in 0..3_u8 {
            let machine = Machine::new(&format!("c{at}"), 11 + at)?;
            let address = machine.address.clone();
            let door = Proxy::start(
                &format!("{HUB}:0"),
                &format!("{address}:{SERVE}"),
                seed ^ u64::from(at + 1),
            )?;
            let arguments = [
                format!("--listen={address}:{SERVE}"),
                format!("--advertise=https://{}", door.address),
                format!("--etcd={}", etcd.urls()),
                format!("--metrics-listen={address}:{METRICS}"),
                format!("--tokens={}", path("tokens.yaml")),
                format!("--tls-cert={}", path("certs/server.pem")),
                format!("--tls-key={}", path("certs/server.key")),
            ];
            let program = programs()?.join("clade-coordinator");
            coordinators.push(Service::new(machine, &program, arguments, &[], folder));
            doors.push(door);
        }
        let bucket = Bucket::start()?;
        let store = Proxy::start(&format!("{HUB}:0"), &bucket.address().to_string(), seed)?;
        let store_environment = bucket.environment_at(&store.address.to_string());
        // Coordinators list and delete checkpoints.
        for coordinator in &mut coordinators {
            coordinator.set_environment(&store_environment);
            coordinator.start()?;
        }

        let urls: Vec<String> =
            doors.iter().map(|door| format!("https://{}", door.address)).collect();
        let connection = |token: String| {
            [
                ("CLADE_COORDINATOR".to_owned(), urls.join(",")),
                ("CLADE_CA".to_owned(), path("certs/ca.pem")),
                ("CLADE_TOKEN".to_owned(), token),
            ]
        };
        let environment: Vec<(String, String)> =
            connection(worker).into_iter().chain(store_environment).collect();
        let (mut workers, mut disks) = (Vec::new(), Vec::new());
        for at in 0..WORKERS {
            let machine = Machine::new(&format!("w{at}"), 31 + at)?;
            let disk = folder.join(&machine.name);
            small_disk(&disk, WORKER_DISK_MIB)?;
            let arguments = [
                "agent".to_owned(),
                format!("--name=w{at}"),
                format!("--state={}", disk.join("state").display()),
                format!("--cache={}", path("cache")),
                "--slots=1".to_owned(),
                "--device=cpu".to_owned(),
                "--stall-after=20s".to_owned(),
                "--silent-after=15s".to_owned(),
            ];
            let program = programs()?.join("clade-worker");
            let mut service = Service::new(machine, &program, arguments, &environment, folder);
            service.start()?;
            workers.push(service);
            disks.push(disk);
        }
        let client = connection(operator).to_vec();
        let folder = folder.to_owned();
        let cluster =
            Self { folder, etcd, coordinators, workers, disks, doors, store, bucket, client };
        wait_for("the workers to join", Duration::from_secs(60), || {
            let joined = cluster.status().ok().map(|status| {
                let workers = status["workers"].as_array().cloned().unwrap_or_default();
                workers.iter().filter(|worker| worker["phase"] == "attached").count()
            });
            Ok(joined.filter(|joined| *joined >= usize::from(WORKERS)))
        })?;
        Ok(cluster)
    }

    pub fn clade(&self) -> anyhow::Result<Command> {
        let mut command = clade()?;
        command.envs(self.client.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    pub fn apply(&self, document: &str) -> anyhow::Result<()> {
        let path = self.folder.join("run.yaml");
        std::fs::write(&path, document)?;
        let done = self.clade()?.arg("apply").arg("-f").arg(&path).output()?;
        ensure!(done.status.success(), "apply: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// What `clade status -o json` says.
    pub fn status(&self) -> anyhow::Result<Value> {
        let done = self.clade()?.args(["status", "-o", "json"]).output()?;
        ensure!(done.status.success(), "status: {}", String::from_utf8_lossy(&done.stderr));
        Ok(serde_json::from_slice(&done.stdout)?)
    }

    /// The same, asked of one coordinator.
    pub fn status_at(&self, at: usize) -> anyhow::Result<Value> {
        let url = format!("https://{}", self.doors[at].address);
        let mut command = self.clade()?;
        let done = command.env("CLADE_COORDINATOR", url).args(["status", "-o", "json"]).output()?;
        ensure!(done.status.success(), "status: {}", String::from_utf8_lossy(&done.stderr));
        Ok(serde_json::from_slice(&done.stdout)?)
    }

    /// What a coordinator's metrics say, if it answers.
    pub fn scrape(&self, at: usize) -> Option<String> {
        let address = format!("{}:{METRICS}", self.coordinators[at].machine.address);
        metrics::get(&address, "/metrics").ok()
    }

    /// The coordinator that leads, if one that can be asked does.
    pub fn leader(&self) -> Option<usize> {
        (0..self.coordinators.len()).find(|at| {
            self.scrape(*at).is_some_and(|it| metrics::sum(&it, "clade_leadership_is_leader") > 0.0)
        })
    }

    /// Waits until one other than `former` leads; gives it and how long that took.
    pub fn wait_leader(&self, former: Option<usize>) -> anyhow::Result<(usize, Duration)> {
        let began = Instant::now();
        let leader = wait_for("a coordinator to lead", Duration::from_secs(60), || {
            Ok(self.leader().filter(|leader| Some(*leader) != former))
        })?;
        Ok((leader, began.elapsed()))
    }

    /// One stage or model of the only run.
    pub fn part(&self, name: &str) -> anyhow::Result<Value> {
        let status = self.status()?;
        let found = parts(&status).find(|part| part["name"] == name).cloned();
        found.with_context(|| format!("no part {name}"))
    }

    /// Live processes of ranks, with their command lines.
    pub fn ranks(&self) -> anyhow::Result<Vec<(i32, String)>> {
        let all = crate::system::processes_naming(&self.folder.display().to_string())?;
        Ok(all.into_iter().filter(|(_, line)| line.contains(" rank ")).collect())
    }
}

/// The parts of the only run.
pub fn parts(status: &Value) -> impl Iterator<Item = &Value> {
    status["runs"][0]["parts"].as_array().into_iter().flatten()
}
