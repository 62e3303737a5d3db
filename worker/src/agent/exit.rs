//! What a rank's end means: its last words, its exit status and what was done to it, taken together.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use clade_core::job::{Failure, Outcome};
use nix::sys::signal::Signal;

/// Exit status of a program whose libraries cannot be loaded.
const LOADER_FAILED: i32 = 127;
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 3;

/// Why the agent ended a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Killed {
    /// It was told to go, and did not in time, or was not to be waited for.
    Stopped,
    /// It gave no sign of life, or did no work, for this long.
    Stalled(Duration),
}

/// Judges how a rank ended. `log` holds what it wrote to stderr.
pub(super) fn classify(
    rank: u32,
    said: Option<Outcome>,
    status: ExitStatus,
    killed: Option<Killed>,
    log: &Path,
) -> Outcome {
    match (said, killed) {
        // Whatever it reported was durable before it said so.
        (Some(outcome), _) => outcome,
        (None, Some(Killed::Stalled(silent))) => {
            Outcome::Failed(Failure::Stalled { rank, seconds: silent.as_secs() })
        }
        (None, Some(Killed::Stopped)) => Outcome::Stopped,
        (None, None) => Outcome::Failed(died(rank, status, &last_words(log))),
    }
}

fn died(rank: u32, status: ExitStatus, words: &str) -> Failure {
    if status.code() == Some(LOADER_FAILED) {
        let message =
            format!("cannot load libtorch ({words}); run `make setup` or set LIBTORCH to a 2.11");
        return Failure::Config { message };
    }
    let ended = match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code} and no report"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
            let hint = if number == Signal::SIGKILL as i32 {
                ", perhaps because memory ran out"
            } else {
                ""
            };
            format!("it was killed by {name} ({number}){hint}")
        }
        (None, None) => "it ended for no reason the system tells".to_owned(),
    };
    let message = if words.is_empty() { ended } else { format!("{ended}; it last said: {words}") };
    Failure::Crashed { rank, message }
}

/// The last lines a rank wrote to stderr.
fn last_words(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok::<_, std::io::Error>(tail)
    };
    let tail = read().unwrap_or_default();
    let tail = String::from_utf8_lossy(&tail);
    let lines: Vec<&str> = tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(raw_status: i32, said: Option<Outcome>, killed: Option<Killed>) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "one\n\nterminate called\n  what(): out of range\n").unwrap();
        classify(2, said, ExitStatus::from_raw(raw_status), killed, &log)
    }

    #[test]
    fn a_signal_is_named_with_the_last_words() {
        let Outcome::Failed(Failure::Crashed { rank: 2, message }) = judged(6, None, None) else {
            panic!("not a crash");
        };
        assert_eq!(
            message,
            "it was killed by SIGABRT (6); it last said: one | terminate called | what(): out of range"
        );
    }

    #[test]
    fn a_missing_library_is_the_installations_fault() {
        let Outcome::Failed(failure) = judged(127 << 8, None, None) else { panic!("it went well") };
        assert!(matches!(&failure, Failure::Config { message } if message.contains("make setup")));
        assert!(!failure.may_retry());
    }

    #[test]
    fn what_was_reported_before_the_end_stands_whatever_the_end() {
        let done = Outcome::Done { counts: [("pairs".to_owned(), 2)].into() };
        assert_eq!(judged(11, Some(done.clone()), None), done);
        assert_eq!(judged(9, None, Some(Killed::Stopped)), Outcome::Stopped);
        assert_eq!(
            judged(9, None, Some(Killed::Stalled(Duration::from_secs(61)))),
            Outcome::Failed(Failure::Stalled { rank: 2, seconds: 61 })
        );
    }
}
