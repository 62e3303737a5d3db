//! Machines as network namespaces on one bridge. A cut takes a machine off the bridge: no packet comes
//! through, and nobody is told.

use std::path::Path;

use super::sh;

/// The address of the hub, where the test, the clients, the proxies and the bucket are.
pub const HUB: &str = "10.77.0.1";

/// Makes the bridge. Once, inside the namespaces.
pub(super) fn hub() -> anyhow::Result<()> {
    // `ip netns` keeps its names there; the mount is ours alone.
    sh("mount -t tmpfs arena /run")?;
    std::fs::create_dir_all("/run/netns")?;
    sh("ip link set lo up")?;
    sh("ip link add br0 type bridge")?;
    sh(&format!("ip addr add {HUB}/24 dev br0"))?;
    sh("ip link set br0 up")?;
    Ok(())
}

/// One machine of the network.
#[derive(Clone, Debug)]
pub struct Machine {
    pub name: String,
    pub address: String,
}

impl Machine {
    /// Makes a machine with the address 10.77.0.`number`.
    pub fn new(name: &str, number: u8) -> anyhow::Result<Self> {
        let machine = Self { name: name.to_owned(), address: format!("10.77.0.{number}") };
        let address = &machine.address;
        // An earlier cluster of this process has left one of the same name.
        sh(&format!("ip link del v-{name}")).ok();
        sh(&format!("ip netns del {name}")).ok();
        sh(&format!("ip netns add {name}"))?;
        sh(&format!("ip link add v-{name} type veth peer name eth0 netns {name}"))?;
        sh(&format!("ip -n {name} link set lo up"))?;
        sh(&format!("ip -n {name} addr add {address}/24 dev eth0"))?;
        sh(&format!("ip -n {name} link set eth0 up"))?;
        machine.join()?;
        sh(&format!("ip link set v-{name} up"))?;
        Ok(machine)
    }

    pub fn join(&self) -> anyhow::Result<()> {
        sh(&format!("ip link set v-{} master br0", self.name)).map(drop)
    }

    pub fn cut(&self) -> anyhow::Result<()> {
        sh(&format!("ip link set v-{} nomaster", self.name)).map(drop)
    }
}

/// Takes a small disk away again, with what is on it.
pub(super) fn take_disk(folder: &Path) {
    sh(&format!("umount --lazy {}", folder.display())).ok();
}

/// Gives a folder a disk of its own, of so many MiB.
pub(super) fn small_disk(folder: &Path, mib: u32) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    sh(&format!("mount -t tmpfs -o size={mib}m disk {}", folder.display())).map(drop)
}
