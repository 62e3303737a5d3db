//! `clade workers`.

use crate::args::{self, Format};
use crate::call::Coordinator;
use crate::exit::Exit;
use crate::output;
use crate::render::{fleet, fleet_json};

use super::status::{now_ms, width};

pub(super) async fn run(coordinator: &Coordinator, args: args::Workers) -> anyhow::Result<Exit> {
    let args::Workers { output } = args;
    let workers = coordinator.workers().await?;
    output::print(&match output {
        Format::Table => fleet::render(&workers, now_ms(), width()),
        Format::Json => fleet_json::render(&workers)?,
    })?;
    Ok(Exit::Done)
}
