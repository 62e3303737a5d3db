//! `clade cancel`.

use crate::args;
use crate::call::Coordinator;
use crate::exit::Exit;
use crate::output;

pub(super) async fn run(coordinator: &Coordinator, args: args::Cancel) -> anyhow::Result<Exit> {
    let args::Cancel { run } = args;
    coordinator.cancel(&run).await?;
    output::note(&format!(
        "run {run} is stopping: its models save their checkpoints first; `clade status {run}` \
         shows when it is cancelled"
    ));
    Ok(Exit::Done)
}
