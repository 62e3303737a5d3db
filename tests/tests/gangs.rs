//! Two gangs of two ranks at the same time on four workers: they share nothing, and cancelling
//! leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clade_tests::system::{System, processes_naming, wait_for};
use clade_tests::toy;

const GANGS: &str = "{seed: {ranks: 2}, expert: {ranks: 2, grace: 10s}}";

/// Established TCP connections of each process as (local, remote) ports on loopback.
fn connections(pid: i32) -> anyhow::Result<BTreeSet<(u16, u16)>> {
    let mut inodes = BTreeSet::new();
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok) {
        if let Ok(target) = std::fs::read_link(fd.path())
            && let Some(inode) = target.to_string_lossy().strip_prefix("socket:[")
        {
            inodes.insert(inode.trim_end_matches(']').to_owned());
        }
    }
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, remote, state, ..] = fields[..] else { continue };
            let Some(inode) = fields.get(9) else { continue };
            if state == "01" && inodes.contains(*inode) {
                let port = |address: &str| {
                    let port = address.rsplit(':').next().unwrap_or_default();
                    u16::from_str_radix(port, 16).context("a port in hexadecimal")
                };
                found.insert((port(local)?, port(remote)?));
            }
        }
    }
    Ok(found)
}

#[test]
fn two_gangs_train_at_once_and_no_socket_joins_them() -> anyhow::Result<()> {
    if let Some(why) = toy::missing() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gangs");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    toy::write(&folder, 2, 120, 7)?;
    let system = System::up(&folder, 4)?;
    let document = toy::document("toy", &folder, (10, 2000), GANGS);
    // The dense baseline would take the seats of one of them.
    let document = document.replace("baselines: [dense]", "baselines: []");
    system.apply(&document)?;
    let experts = ["expert-0", "expert-1"];
    wait_for("two gangs at once", Duration::from_secs(180), || {
        let is_running = |name: &&str| {
            let part = system.part(name).ok();
            part.is_some_and(|part| part["phase"] == "running" && part["done"].as_u64() >= Some(2))
        };
        Ok(experts.iter().all(is_running).then_some(()))
    })?;
    let mut ports: BTreeMap<u16, &str> = BTreeMap::new();
    let mut ends: Vec<(&str, u16, u16)> = Vec::new();
    for expert in experts {
        let pids = system.ranks(expert)?;
        ensure!(pids.len() == 2, "{expert} has ranks {pids:?}");
        for pid in pids {
            for (local, remote) in connections(pid)? {
                ports.insert(local, expert);
                ends.push((expert, local, remote));
            }
        }
    }
    let inside = |expert: &str| {
        ends.iter()
            .filter(|(of, _, remote)| *of == expert && ports.get(remote) == Some(&expert))
            .count()
    };
    for expert in experts {
        ensure!(inside(expert) >= 2, "{expert}: no sockets between its own ranks: {ends:?}");
    }
    for (expert, local, remote) in &ends {
        let other = ports.get(remote);
        ensure!(
            other == Some(expert),
            "a rank of {expert} is connected from {local} to {remote} of {other:?}"
        );
    }

    system.cancel("toy")?;
    let phase = system.wait_end(Duration::from_secs(60))?;
    ensure!(phase == "cancelled", "the run ended {phase}");
    let left: Vec<_> =
        system.processes()?.into_iter().filter(|(_, line)| line.contains(" rank ")).collect();
    ensure!(left.is_empty(), "cancel left ranks behind: {left:?}");
    // Cancelled models saved before they went, and go on from there after everything was stopped.
    let mut saved = Vec::new();
    for expert in experts {
        let step = system.part(expert)?["committedStep"].as_u64();
        ensure!(step > Some(10), "{expert} did not save: {}", system.part(expert)?);
        saved.push((expert, step));
    }
    system.stop()?;
    let system = System::up(&folder, 4)?;
    system.apply(&document)?;
    for (expert, step) in saved {
        system.wait_part(expert, "to go on", |part| {
            part["phase"] == "running" && part["done"].as_u64().map(|done| done + 10) > step
        })?;
        let log = system.logs(expert)?;
        ensure!(log.contains("going on from a checkpoint"), "{expert} started over:\n{log}");
    }

    // Killing `clade up` itself leaves no process behind for long, and the next one need not wait.
    drop(system);
    drop(System::up(&folder, 4)?);
    let data = folder.join("data").display().to_string();
    wait_for("everything to end with clade up", Duration::from_secs(60), || {
        Ok(processes_naming(&data)?.is_empty().then_some(()))
    })
}
