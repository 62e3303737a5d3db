//! What it cost: CPU and wall time of everything that was started.

use std::io;
use std::num::NonZero;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// `CPU time 12.3 min on 2 cores, wall 7.9 min`: all descendants, once they have ended.
pub(super) fn spent(wall: Duration) -> io::Result<String> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = duration(usage.user_time()) + duration(usage.system_time());
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Ok(sentence(cpu, cores, wall))
}

fn sentence(cpu: Duration, cores: usize, wall: Duration) -> String {
    let minutes = |it: Duration| it.as_secs_f64() / 60.0;
    let plural = if cores == 1 { "" } else { "s" };
    format!(
        "CPU time {:.1} min on {cores} core{plural}, wall {:.1} min",
        minutes(cpu),
        minutes(wall)
    )
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_told_in_minutes() {
        assert_eq!(
            sentence(Duration::from_secs(738), 2, Duration::from_secs(474)),
            "CPU time 12.3 min on 2 cores, wall 7.9 min"
        );
    }
}
