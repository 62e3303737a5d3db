//! `clade jobs`.

use super::run_choice::only_run;
use super::status::width;
use crate::args::{self, Format};
use crate::call::Coordinator;
use crate::exit::Exit;
use crate::output;
use crate::render::jobs;

pub(super) async fn run(coordinator: &Coordinator, args: args::Jobs) -> anyhow::Result<Exit> {
    let args::Jobs { run, stage, phase, output } = args;
    let run = match run {
        Some(run) => run,
        None => only_run(&coordinator.status("").await?.runs)?,
    };
    let stage = stage.map(|stage| stage.to_string()).unwrap_or_default();
    let found = coordinator.jobs(&run, &stage, &phase.unwrap_or_default()).await?;
    output::print(&match output {
        Format::Table => jobs::table(&found, width()),
        Format::Json => jobs::json(&found)?,
    })?;
    Ok(Exit::Done)
}
