//! What a stretch of work took of the machine.

use std::fs;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

/// Started when the work starts.
pub(super) struct Meter {
    since: Instant,
    cpu: f64,
}

/// What the work took.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Usage {
    pub(super) seconds: f64,
    /// Of all threads, in user and kernel mode.
    pub(super) cpu_seconds: f64,
    /// Most memory this process ever had, in 10^6 bytes.
    pub(super) peak_rss_mb: f64,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self { since: Instant::now(), cpu: cpu_seconds() }
    }

    pub(super) fn stop(self) -> Usage {
        let Self { since, cpu } = self;
        Usage {
            seconds: since.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds() - cpu,
            peak_rss_mb: peak_kilobytes() * 1024.0 / 1e6,
        }
    }
}

fn cpu_seconds() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .sum()
    })
}

fn peak_kilobytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
