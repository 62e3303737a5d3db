//! Processes that outlive their parents.
//!
//! `clade up` is the reaper of its descendants: when an agent is killed, its ranks become children
//! of `clade up`. So nobody can leave this tree, none stays a zombie, and the CPU time of all is
//! known in the end. Children that [`super::child`] waits for are listed as kin and left alone.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// How long orphans may take to notice by themselves that their agent is gone.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
const KILL_LIMIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The process ids that somebody waits for by name. Locked while a child is made, so that no
/// orphan hunt sees a child before it is listed.
#[derive(Clone, Debug, Default)]
pub(super) struct Kin(Arc<Mutex<BTreeSet<i32>>>);

impl Kin {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes this process the parent of every descendant whose own parent dies.
pub(super) fn adopt() -> io::Result<()> {
    prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// Buries orphans as they die, for ever.
pub(super) async fn bury(kin: Kin) -> io::Result<()> {
    let mut deaths = signal(SignalKind::child())?;
    loop {
        deaths.recv().await;
        living(&kin);
    }
}

/// Waits until no orphan is left; kills those that do not leave by themselves.
pub(super) async fn clear(kin: &Kin, at_once: bool) {
    let began = Instant::now();
    while began.elapsed() < LEAVE_LIMIT + KILL_LIMIT {
        let left = living(kin);
        if left.is_empty() {
            return;
        }
        if at_once || began.elapsed() > LEAVE_LIMIT {
            for pid in left {
                // One that died a moment ago is what is wanted.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Buries dead orphans and lists the living.
fn living(kin: &Kin) -> Vec<Pid> {
    let kin = kin.lock();
    let me = Pid::this().as_raw();
    let mut left = Vec::new();
    for Process { pid, parent, is_zombie } in processes() {
        if parent != me || kin.contains(&pid) {
            continue;
        }
        let pid = Pid::from_raw(pid);
        if is_zombie {
            // Whatever it says, the next look finds out whether it is gone.
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        } else {
            left.push(pid);
        }
    }
    left
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    is_zombie: bool,
}

fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            parse_stat(pid, &stat)
        })
        .collect()
}

/// `pid (name) state ppid …`, where the name may hold anything.
fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = fields.next()? == "Z";
    Some(Process { pid, parent: fields.next()?.parse().ok()?, is_zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_and_spaces_does_not_mislead() {
        assert_eq!(
            parse_stat(7, "7 (a) Z 1 (b) S 42 7 7 0"),
            Some(Process { pid: 7, parent: 42, is_zombie: false })
        );
    }

    #[test]
    fn this_process_is_found_with_its_parent() {
        let me = Pid::this().as_raw();
        let found = processes().into_iter().find(|it| it.pid == me).unwrap();
        assert_eq!(found.parent, Pid::parent().as_raw());
    }
}
