//! How the command ends: its exit code, and the one sentence about what went wrong.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::call::CallError;
use crate::document::DocumentError;

/// An end that is no error of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    /// The run that was waited for failed or was cancelled; the reason is on the screen.
    RunFailed,
    Interrupted,
}

/// A command line that clap could not know to be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Prints the error, if any, and picks the exit code that `clade --help` documents.
pub(crate) fn code(ended: anyhow::Result<Exit>) -> ExitCode {
    let error = match ended {
        Ok(Exit::Done) => return ExitCode::SUCCESS,
        Ok(Exit::RunFailed) => return ExitCode::from(1),
        Ok(Exit::Interrupted) => return ExitCode::from(130),
        Err(error) => error,
    };
    if is_closed_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "clade: {error:#}");
    ExitCode::from(number(&error))
}

fn number(error: &anyhow::Error) -> u8 {
    if error.is::<DocumentError>() || error.is::<UsageError>() {
        return 2;
    }
    match error.downcast_ref::<CallError>() {
        Some(
            CallError::NoCoordinator { .. }
            | CallError::NoLeader { .. }
            | CallError::NoAnswer { .. }
            | CallError::Tls { .. },
        ) => 3,
        Some(CallError::BadConnection(_)) => 2,
        Some(CallError::Refused { .. } | CallError::Failed { .. } | CallError::Foreign { .. })
        | None => 1,
    }
}

/// `clade logs | head` closes the pipe early; that is no fault.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
