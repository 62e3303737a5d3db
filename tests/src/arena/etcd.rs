//! Three members of etcd, each on a machine and a small disk of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::metrics;
use super::network::{Machine, small_disk};
use super::service::Service;
use crate::system::wait_for;

const CLIENT: u16 = 2379;
const PEER: u16 = 2380;
const METRICS: u16 = 2381;
/// Two segments of its log, its database, and a little.
const DISK_MIB: u32 = 256;

fn program() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/etcd/bin/etcd").into()
}

/// Why there can be none on this machine, if so.
pub fn missing() -> Option<String> {
    let why = || "etcd is not in assets/etcd; `make etcd` puts it there".to_owned();
    (!program().exists()).then(why)
}

#[derive(Debug)]
pub struct Etcd {
    pub members: Vec<Service>,
    pub disks: Vec<PathBuf>,
}

impl Etcd {
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let machines: Vec<Machine> =
            (0..3).map(|at| Machine::new(&format!("e{at}"), 21 + at)).collect::<Result<_, _>>()?;
        let peers: Vec<String> =
            machines.iter().map(|it| format!("{}=http://{}:{PEER}", it.name, it.address)).collect();
        let mut etcd = Self { members: Vec::new(), disks: Vec::new() };
        for machine in machines {
            let disk = folder.join(&machine.name);
            small_disk(&disk, DISK_MIB)?;
            let Machine { name, address } = machine.clone();
            let arguments = [
                format!("--name={name}"),
                format!("--data-dir={}", disk.join("data").display()),
                format!("--listen-client-urls=http://{address}:{CLIENT}"),
                format!("--advertise-client-urls=http://{address}:{CLIENT}"),
                format!("--listen-peer-urls=http://{address}:{PEER}"),
                format!("--initial-advertise-peer-urls=http://{address}:{PEER}"),
                format!("--initial-cluster={}", peers.join(",")),
                format!("--listen-metrics-urls=http://{address}:{METRICS}"),
            ];
            let mut member = Service::new(machine, &program(), arguments, &[], folder);
            member.start()?;
            etcd.members.push(member);
            etcd.disks.push(disk);
        }
        for at in 0..3 {
            etcd.wait_healthy(at)?;
        }
        Ok(etcd)
    }

    pub fn wait_healthy(&self, at: usize) -> anyhow::Result<()> {
        let member = &self.members[at];
        wait_for(
            &format!("etcd's {} to be healthy", member.name()),
            Duration::from_secs(60),
            || {
                let said = self.ask(at, "/health");
                Ok(said.contains("\"health\":\"true\"").then_some(()))
            },
        )
    }

    fn ask(&self, at: usize, path: &str) -> String {
        let address = &self.members[at].machine.address;
        metrics::get(&format!("{address}:{METRICS}"), path).unwrap_or_default()
    }

    /// The member that leads, if one that can be asked does.
    pub fn leader(&self) -> Option<usize> {
        (0..3).find(|at| metrics::sum(&self.ask(*at, "/metrics"), "etcd_server_is_leader") > 0.0)
    }

    pub fn urls(&self) -> String {
        let url = |it: &Service| format!("http://{}:{CLIENT}", it.machine.address);
        self.members.iter().map(url).collect::<Vec<_>>().join(",")
    }
}
