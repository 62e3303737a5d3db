//! The command lines of coordinator and agents, the same at every restart.

use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use super::child::ChildSpec;
use super::folder::DataFolder;
use super::programs::Programs;

/// Ranks get their own grace from their agent; this is the agent's, and longer.
const AGENT_GRACE: Duration = Duration::from_secs(60);
const COORDINATOR_GRACE: Duration = Duration::from_secs(10);

pub(super) struct Launch {
    pub(super) programs: Programs,
    pub(super) listen: SocketAddr,
    pub(super) workers: u32,
    pub(super) slots: u32,
    pub(super) threads_per_rank: Option<u32>,
}

impl Launch {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub(super) fn coordinator(&self, folder: &DataFolder) -> ChildSpec {
        ChildSpec {
            name: "coordinator".to_owned(),
            program: self.programs.coordinator.clone(),
            args: vec![
                "--listen".to_owned(),
                self.listen.to_string(),
                "--state".to_owned(),
                folder.coordinator(),
                // It is for this machine alone, and `up` takes loopback addresses only.
                "--no-auth".to_owned(),
                "--exit-with-stdin".to_owned(),
            ],
            log: folder.log("coordinator"),
            grace: COORDINATOR_GRACE,
        }
    }

    pub(super) fn agents(&self, folder: &DataFolder) -> Vec<ChildSpec> {
        let threads = self.threads_per_rank.unwrap_or_else(|| self.share_of_cores());
        (0..self.workers)
            .map(|index| {
                let name = format!("w{index}");
                let flags = [
                    ("--coordinator", self.url()),
                    ("--name", name.clone()),
                    ("--slots", self.slots.to_string()),
                    ("--state", folder.worker(&name)),
                    ("--cache", folder.cache()),
                    ("--threads-per-rank", threads.to_string()),
                ];
                let flags = flags.into_iter().flat_map(|(key, value)| [key.to_owned(), value]);
                ChildSpec {
                    program: self.programs.worker.clone(),
                    args: std::iter::once("agent".to_owned())
                        .chain(flags)
                        .chain(["--exit-with-stdin".to_owned()])
                        .collect(),
                    log: folder.log(&name),
                    grace: AGENT_GRACE,
                    name,
                }
            })
            .collect()
    }

    fn share_of_cores(&self) -> u32 {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let seats = self.workers.saturating_mul(self.slots).max(1);
        (u32::try_from(cores).unwrap_or(u32::MAX) / seats).max(1)
    }

    /// What to do next when no run was given.
    pub(super) fn stay_hint(&self) -> String {
        let default = self.listen == SocketAddr::from(([127, 0, 0, 1], 7600));
        let flag = if default { String::new() } else { format!(" --coordinator {}", self.url()) };
        format!(
            "{} workers start; give them a run with `clade{flag} apply -f run.yaml`, watch with \
             `clade{flag} status --watch`, stop with Ctrl-C",
            self.workers
        )
    }
}

/// The command that goes on where this one stopped: the same, but not from the beginning.
pub(super) fn go_on_with(args: impl Iterator<Item = String>) -> String {
    let quoted = args.filter(|arg| arg != "--fresh").map(|arg| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            arg
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_go_on_with_is_the_same_without_fresh_and_can_be_pasted() {
        let args = ["clade", "up", "-f", "my run's.yaml", "--fresh", "--workers=3"];
        assert_eq!(
            go_on_with(args.into_iter().map(str::to_owned)),
            r"clade up -f 'my run'\''s.yaml' --workers=3"
        );
    }
}
