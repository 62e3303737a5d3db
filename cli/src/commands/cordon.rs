//! `clade cordon` and `clade uncordon`.

use crate::args;
use crate::call::Coordinator;
use crate::exit::Exit;
use crate::output;

pub(super) async fn cordon(coordinator: &Coordinator, args: args::Cordon) -> anyhow::Result<Exit> {
    let args::Cordon { node, reason } = args;
    coordinator.cordon(&node, &reason).await?;
    output::note(&format!(
        "node {node} is cordoned: it gets nothing new, and what runs there goes on; `clade drain \
         {node}` sends that away too, `clade uncordon {node}` takes the node up again"
    ));
    Ok(Exit::Done)
}

pub(super) async fn uncordon(
    coordinator: &Coordinator,
    args: args::Uncordon,
) -> anyhow::Result<Exit> {
    let args::Uncordon { node } = args;
    coordinator.uncordon(&node).await?;
    output::note(&format!("node {node} takes work again"));
    Ok(Exit::Done)
}
