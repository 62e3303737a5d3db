//! `clade status`, once or redrawn in place.

mod keys;
mod watch;

use std::io::{self, IsTerminal as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use console::Term;

use crate::args::{self, Format};
use crate::call::Coordinator;
use crate::exit::{Exit, UsageError};
use crate::output;
use crate::render::{json, table};

/// Width without a terminal, and the least that the table is laid out for.
const USUAL_WIDTH: u16 = 100;
const NARROWEST: u16 = 60;

pub(super) async fn run(coordinator: &Coordinator, args: args::Status) -> anyhow::Result<Exit> {
    let args::Status { run, watch, output } = args;
    let run = run.unwrap_or_default();
    if watch {
        if output == Format::Json {
            return Err(UsageError(
                "--watch draws a table; ask for JSON once, without --watch".to_owned(),
            )
            .into());
        }
        return watch::watch(coordinator, &run).await;
    }
    let status = coordinator.status(&run).await?;
    output::print(&match output {
        Format::Table => table::render(&status, now_ms(), width()),
        Format::Json => json::render(&status)?,
    })?;
    Ok(Exit::Done)
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn width() -> u16 {
    let columns = || Term::stdout().size_checked().map(|(_, columns)| columns);
    let terminal = if io::stdout().is_terminal() { columns() } else { None };
    terminal.unwrap_or(USUAL_WIDTH).max(NARROWEST)
}
