//! A cluster in a network of its own: every part of it is a real process in a network namespace, joined by
//! a bridge, and everything ends with the process that plays with it.
//!
//! Needs util-linux and iproute2, and either root or user namespaces.

pub mod chaos;
pub mod cluster;
pub mod etcd;
pub mod faults;
pub mod marks;
pub mod metrics;
pub mod network;
pub mod proxy;
pub mod service;
pub mod verdict;

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, ensure};

/// Set for the process that is inside.
const INSIDE: &str = "CLADE_ARENA";

const NAMESPACES: [&str; 6] =
    ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Where this process is.
pub enum Place {
    /// In the namespaces, at the hub of the network.
    Inside,
    /// Outside; whoever was inside has ended so.
    Ended(ExitCode),
    /// The namespaces cannot be had.
    Missing(String),
}

/// Begins this program anew in namespaces of its own, and waits for its end.
pub fn enter() -> anyhow::Result<Place> {
    if std::env::var_os(INSIDE).is_some() {
        network::hub()?;
        return Ok(Place::Inside);
    }
    let mut flags: Vec<&str> = NAMESPACES.to_vec();
    if !nix::unistd::geteuid().is_root() {
        flags.extend(["--user", "--map-root-user"]);
    }
    let tried = Command::new("unshare")
        .args(&flags)
        .args(["ip", "link", "add", "br0", "type", "bridge"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(tried) if tried.status.success() => (),
        Ok(tried) => {
            let said = String::from_utf8_lossy(&tried.stderr);
            return Ok(Place::Missing(format!("no namespaces: {}", said.trim())));
        }
        Err(error) => return Ok(Place::Missing(format!("unshare of util-linux: {error}"))),
    }
    let own = std::env::current_exe()?;
    // Whoever started this may be killed: `unshare` itself does not listen to Ctrl-C.
    let ended = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(&flags)
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .context("cannot start setpriv of util-linux")?;
    let code = ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(Place::Ended(ExitCode::from(code)))
}

/// Runs a short command; its error says what it said.
pub(crate) fn sh(command: &str) -> anyhow::Result<String> {
    let mut words = command.split_whitespace();
    let program = words.next().context("a command")?;
    let done = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "`{command}`: {}", said.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
