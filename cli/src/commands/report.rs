//! `clade report`, and the report at the end of `clade up -f` and `clade apply --wait`.

use clade_proto::v1::GetReportResponse;

use super::run_choice::only_run;
use crate::args;
use crate::call::Coordinator;
use crate::exit::Exit;
use crate::output;

pub(super) async fn run(coordinator: &Coordinator, args: args::Report) -> anyhow::Result<Exit> {
    let args::Report { run, json } = args;
    let run = match run {
        Some(run) => run,
        None => only_run(&coordinator.status("").await?.runs)?,
    };
    if json {
        output::print(&coordinator.report(&run).await?.json)?;
    } else {
        print_report(coordinator, &run).await?;
    }
    Ok(Exit::Done)
}

/// Prints the report, and where it and the bundle are.
pub(crate) async fn print_report(coordinator: &Coordinator, run: &str) -> anyhow::Result<()> {
    let GetReportResponse { markdown, json: _, report, bundle } = coordinator.report(run).await?;
    let mut text = format!("{}\n\n", markdown.trim_end());
    for (label, place) in [("report", report), ("bundle", bundle)] {
        if !place.is_empty() {
            text += &format!("{label}: {place}\n");
        }
    }
    output::print(&text)?;
    Ok(())
}
