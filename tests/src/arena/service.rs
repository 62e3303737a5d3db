//! One program of the cluster on its machine, which can be started, hurt and started again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::network::Machine;
use crate::system::wait_for;

/// A program with all it needs to be started again.
#[derive(Debug)]
pub struct Service {
    pub machine: Machine,
    command: Vec<OsString>,
    environment: Vec<(String, String)>,
    pub log: PathBuf,
    process: Option<Child>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Service {
    pub fn new(
        machine: Machine,
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
        environment: &[(String, String)],
        logs: &Path,
    ) -> Self {
        let log = logs.join(format!("{}.log", machine.name));
        let mut command: Vec<OsString> = vec![program.into()];
        command.extend(arguments.into_iter().map(Into::into));
        Self { machine, command, environment: environment.to_vec(), log, process: None }
    }

    /// For its next start.
    pub fn set_environment(&mut self, environment: &[(String, String)]) {
        self.environment = environment.to_vec();
    }

    pub fn name(&self) -> &str {
        &self.machine.name
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let process = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.machine.name))
            .arg("--")
            .args(&self.command)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start nsenter of util-linux")?;
        self.process = Some(process);
        Ok(())
    }

    pub fn is_alive(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        matches!(process.try_wait(), Ok(None))
    }

    /// Sends a signal; harmless if it is gone.
    pub fn signal(&self, signal: Signal) {
        let Some(process) = &self.process else { return };
        if let Ok(pid) = i32::try_from(process.id()) {
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    /// Waits for an end that is already under way.
    pub fn wait_gone(&mut self, limit: Duration) -> anyhow::Result<()> {
        let name = self.name().to_owned();
        wait_for(&format!("{name} to end"), limit, || Ok((!self.is_alive()).then_some(())))?;
        self.kill();
        Ok(())
    }

    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}
