//! A real system: `clade up` with its coordinator and workers, watched through `clade status`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A running `clade up`. Dropping it ends it and everything it started.
pub struct System {
    up: Child,
    url: String,
    pub folder: PathBuf,
}

/// The folder of the programs built beside this test.
pub(crate) fn programs() -> anyhow::Result<PathBuf> {
    // A test lies in target/…/deps, a program beside the others.
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program lies in a folder")?;
    let folder =
        if folder.ends_with("deps") { folder.parent().context("target/…")? } else { folder };
    for program in ["clade", "clade-coordinator", "clade-worker"] {
        let path = folder.join(program);
        ensure!(path.exists(), "{} is not built: run `make test`", path.display());
    }
    Ok(folder.to_owned())
}

pub(crate) fn clade() -> anyhow::Result<Command> {
    Ok(Command::new(programs()?.join("clade")))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until `look` finds something; fails with what was waited for.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

impl System {
    /// Starts `clade up` that stays, its data and toy dataset below `folder`.
    pub fn up(folder: &Path, workers: u32) -> anyhow::Result<Self> {
        Self::up_in(folder, workers, &[])
    }

    /// The same with variables in its environment.
    pub fn up_in(
        folder: &Path,
        workers: u32,
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let log = std::fs::File::create(folder.join("up.log"))?;
        let up = clade()?
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .args(["up", "--workers", &workers.to_string(), "--threads-per-rank", "1"])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--plain"])
            .arg("--data")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let system = Self { up, url, folder: folder.to_owned() };
        system.wait_attached(workers)?;
        Ok(system)
    }

    /// Waits until exactly so many workers are attached.
    pub fn wait_attached(&self, workers: u32) -> anyhow::Result<()> {
        wait_for(&format!("{workers} workers"), Duration::from_secs(90), || {
            let attached = self.status().ok().map(|status| {
                let workers = status["workers"].as_array().cloned().unwrap_or_default();
                workers.iter().filter(|worker| worker["phase"] == "attached").count()
            });
            Ok(attached.filter(|attached| *attached == workers as usize).map(|_| ()))
        })
    }

    /// Starts a worker of one seat that nobody restarts.
    pub fn hire(&self, name: &str) -> anyhow::Result<Hired> {
        let log = std::fs::File::create(self.folder.join(format!("{name}.log")))?;
        let agent = Command::new(programs()?.join("clade-worker"))
            .args(["agent", "--coordinator", &self.url, "--name", name, "--slots", "1"])
            .args(["--threads-per-rank", "1", "--device", "cpu", "--exit-with-stdin", "--state"])
            .arg(self.folder.join("data").join(name))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Hired(agent))
    }

    fn client(&self, args: &[&str]) -> anyhow::Result<Output> {
        Ok(clade()?.args(["--coordinator", &self.url]).args(args).output()?)
    }

    pub fn apply(&self, document: &str) -> anyhow::Result<()> {
        let path = self.folder.join("run.yaml");
        std::fs::write(&path, document)?;
        let done = self.client(&["apply", "-f", &path.display().to_string()])?;
        ensure!(done.status.success(), "apply: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    pub fn cancel(&self, run: &str) -> anyhow::Result<()> {
        let done = self.client(&["cancel", run])?;
        ensure!(done.status.success(), "cancel: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// What `clade status -o json` says.
    pub fn status(&self) -> anyhow::Result<Value> {
        let done = self.client(&["status", "-o", "json"])?;
        ensure!(done.status.success(), "status: {}", String::from_utf8_lossy(&done.stderr));
        Ok(serde_json::from_slice(&done.stdout)?)
    }

    pub fn logs(&self, work: &str) -> anyhow::Result<String> {
        let done = self.client(&["logs", work])?;
        ensure!(done.status.success(), "logs: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// One stage or model of the only run.
    pub fn part(&self, name: &str) -> anyhow::Result<Value> {
        let status = self.status()?;
        let parts = status["runs"][0]["parts"].as_array().context("a run has parts")?;
        let found = parts.iter().find(|part| part["name"] == name);
        found.cloned().with_context(|| format!("no part {name}"))
    }

    /// Waits until `is_so` holds for a part; a coordinator that restarts is waited for.
    pub fn wait_part(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        wait_for(&format!("{name} {what}"), Duration::from_secs(120), || {
            if let Ok(status) = self.status() {
                let phase = &status["runs"][0]["phase"];
                ensure!(phase != "failed", "the run failed: {}", status["runs"][0]["reason"]);
            }
            Ok(self.part(name).ok().filter(|part| is_so(part)))
        })
    }

    /// Waits for the end of the only run and returns its phase.
    pub fn wait_end(&self, limit: Duration) -> anyhow::Result<String> {
        wait_for("the run to end", limit, || {
            let Ok(status) = self.status() else { return Ok(None) };
            let phase = status["runs"][0]["phase"].as_str().unwrap_or_default().to_owned();
            Ok(["finished", "failed", "cancelled"].contains(&phase.as_str()).then_some(phase))
        })
    }

    /// Every live process that `clade up` started, with its command line.
    pub fn processes(&self) -> anyhow::Result<Vec<(i32, String)>> {
        let marker = self.folder.join("data").display().to_string();
        processes_naming(&marker)
    }

    /// The processes of ranks of `work` (`expert-1`) that run here.
    pub fn ranks(&self, work: &str) -> anyhow::Result<Vec<i32>> {
        let all = self.processes()?.into_iter();
        let is_rank = |line: &str| line.contains(" rank ") && line.contains(&format!("-{work}-"));
        Ok(all.filter(|(_, line)| is_rank(line)).map(|(pid, _)| pid).collect())
    }

    /// The process of the coordinator, or of worker `w<index>`.
    pub fn process(&self, program: &str) -> anyhow::Result<i32> {
        let found = self.processes()?.into_iter().find(|(_, line)| match program {
            "coordinator" => line.contains("clade-coordinator"),
            worker => line.contains(" agent ") && line.contains(&format!("--name {worker}")),
        });
        Ok(found.with_context(|| format!("{program} does not run"))?.0)
    }

    /// Sends SIGTERM to `clade up` and waits for its end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.up.id())?), Signal::SIGTERM)?;
        let status =
            wait_for("clade up to end", Duration::from_secs(60), || Ok(self.up.try_wait()?))?;
        let left = self.processes()?;
        if !left.is_empty() {
            bail!("clade up ended with {status} and left behind {left:?}");
        }
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Its children end when their standard input does.
        self.up.kill().ok();
        self.up.wait().ok();
    }
}

/// A worker beside those of `clade up`. Dropping it kills it, and its ranks with it.
pub struct Hired(Child);

impl Drop for Hired {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub fn kill_now(pid: i32) -> anyhow::Result<()> {
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// Live processes whose command line names `marker`, other than `clade up` and `clade` clients.
pub fn processes_naming(marker: &str) -> anyhow::Result<Vec<(i32, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let is_ours = line.contains("clade-worker") || line.contains("clade-coordinator");
        if is_ours && line.contains(marker) {
            found.push((pid, line));
        }
    }
    Ok(found)
}

/// `clade` with these variables in its environment.
pub fn clade_with(environment: &[(&str, String)]) -> anyhow::Result<Command> {
    let mut command = clade()?;
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// Runs `clade up -f` to its end, on so many workers.
pub fn up_with_workers(folder: &Path, document: &str, workers: u32) -> anyhow::Result<Output> {
    up_as(folder, document, &[], workers)
}

/// Runs `clade up -f` to its end.
pub fn up_to_the_end(folder: &Path, document: &str) -> anyhow::Result<Output> {
    up_with(folder, document, &[])
}

/// The same with variables in its environment.
pub fn up_with(
    folder: &Path,
    document: &str,
    environment: &[(&str, String)],
) -> anyhow::Result<Output> {
    up_as(folder, document, environment, 2)
}

fn up_as(
    folder: &Path,
    document: &str,
    environment: &[(&str, String)],
    workers: u32,
) -> anyhow::Result<Output> {
    let workers = workers.to_string();
    std::fs::create_dir_all(folder)?;
    let path = folder.join("run.yaml");
    std::fs::write(&path, document)?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    Ok(clade_with(environment)?
        .args([
            "up",
            "--workers",
            &workers,
            "--threads-per-rank",
            "1",
            "--plain",
            "--listen",
            &listen,
        ])
        .arg("--data")
        .arg(folder.join("data"))
        .arg("-f")
        .arg(&path)
        .stdin(Stdio::null())
        .output()?)
}
