//! One supervised child: started, watched, started again, stopped.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fleet::GaveUp;
use super::log;
use super::orphans::Kin;
use super::restart::{End, Restarts, Verdict};

/// Says one line to whoever watches.
pub(super) type Announce = Arc<dyn Fn(&str) + Send + Sync>;

/// What a child is and how it is started, the same way each time.
#[derive(Clone, Debug)]
pub(super) struct ChildSpec {
    /// `coordinator`, `w0`, …
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    /// Takes standard output and error of all its lives.
    pub(super) log: PathBuf,
    /// How long it may take to end after SIGTERM.
    pub(super) grace: Duration,
}

/// Wishes of the supervisor to its children.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    /// SIGTERM, then wait.
    pub(super) stop: CancellationToken,
    /// SIGKILL to the whole process group, now.
    pub(super) kill: CancellationToken,
}

/// One life of a child.
struct Life {
    child: Child,
    pid: Pid,
    /// The child ends when this closes, so it does not outlive a supervisor that was killed.
    _stdin: Option<ChildStdin>,
    began: Instant,
    log_begin: u64,
}

/// Keeps a child running until it is to stop; returns why if it cannot be kept running.
///
/// `pid` always holds the process id of the present life, if there is one.
pub(super) async fn supervise(
    spec: ChildSpec,
    wishes: Wishes,
    kin: Kin,
    announce: Announce,
    pid: watch::Sender<Option<u32>>,
) -> Option<GaveUp> {
    let mut restarts = Restarts::new();
    loop {
        let began = Instant::now();
        let (end, log_begin) = match start(&spec, &kin) {
            Ok(mut life) => {
                pid.send_replace(u32::try_from(life.pid.as_raw()).ok());
                let end = tokio::select! {
                    end = wait(&mut life, &kin) => Some(end),
                    () = wishes.stop.cancelled() => None,
                };
                let Some(end) = end else {
                    terminate(&spec, &mut life, &wishes, &kin, &announce).await;
                    pid.send_replace(None);
                    return None;
                };
                pid.send_replace(None);
                (end, life.log_begin)
            }
            Err(error) => (End::NotStarted(error.to_string()), 0),
        };
        let words = match &end {
            End::NotStarted(_) => None,
            End::Exited(_) | End::Killed(_) => log::last_line(&spec.log, log_begin).ok().flatten(),
        };
        if let Some(library) = words.as_deref().and_then(log::missing_library) {
            return Some(GaveUp::LibraryMissing { name: spec.name, library });
        }
        match restarts.after(&end, began.elapsed()) {
            Verdict::GiveUp => {
                return Some(GaveUp::FailsAtOnce { name: spec.name, end, words, log: spec.log });
            }
            Verdict::RestartIn(delay) => {
                let words = match (&end, words) {
                    (End::Exited(_), Some(words)) => format!(" ({words})"),
                    (End::Exited(_) | End::Killed(_) | End::NotStarted(_), _) => String::new(),
                };
                announce(&format!(
                    "{} {end}{words}; it starts again in {:.1} s",
                    spec.name,
                    delay.as_secs_f64()
                ));
                tokio::select! {
                    () = tokio::time::sleep(delay) => (),
                    () = wishes.stop.cancelled() => return None,
                }
            }
        }
    }
}

fn start(spec: &ChildSpec, kin: &Kin) -> std::io::Result<Life> {
    let (log, log_begin) = log::open(&spec.log)?;
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Its output goes to a file, and its last words into a sentence.
        .env("NO_COLOR", "1")
        // A group of its own: the terminal's Ctrl-C is for `clade up` alone.
        .process_group(0);
    let mut kin = kin.lock();
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = Pid::from_raw(pid.expect("a child that was not waited for has a process id"));
    kin.insert(pid.as_raw());
    let stdin = child.stdin.take();
    Ok(Life { child, pid, _stdin: stdin, began: Instant::now(), log_begin })
}

async fn wait(life: &mut Life, kin: &Kin) -> End {
    let status = life.child.wait().await;
    kin.lock().remove(&life.pid.as_raw());
    match status {
        Ok(status) => end_of(status),
        Err(error) => End::NotStarted(format!("lost sight of it: {error}")),
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Killed(signal.unwrap_or_default()),
    }
}

/// Ends a life: asks, waits for the grace, then kills the whole group.
async fn terminate(
    spec: &ChildSpec,
    life: &mut Life,
    wishes: &Wishes,
    kin: &Kin,
    announce: &Announce,
) {
    let pid = life.pid;
    if !wishes.kill.is_cancelled() {
        // Not the group: an agent's ranks are the agent's to stop.
        let _ = kill(pid, Signal::SIGTERM);
        tokio::select! {
            _ = wait(life, kin) => {
                let _ = killpg(pid, Signal::SIGKILL);
                return;
            }
            () = tokio::time::sleep(spec.grace) => announce(&format!(
                "{} did not stop within {} s and is killed ({} s old)",
                spec.name,
                spec.grace.as_secs(),
                life.began.elapsed().as_secs()
            )),
            () = wishes.kill.cancelled() => (),
        }
    }
    let _ = killpg(pid, Signal::SIGKILL);
    wait(life, kin).await;
}

#[cfg(test)]
mod tests;
