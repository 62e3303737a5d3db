//! `clade drain`, and waiting until nothing runs on the node any more.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::args;
use crate::call::{CallError, Coordinator, Patience};
use crate::exit::Exit;
use crate::interrupt::Interrupts;
use crate::output;

/// How often the coordinator is asked.
const PERIOD: Duration = Duration::from_millis(500);

pub(super) async fn run(coordinator: &Coordinator, args: args::Drain) -> anyhow::Result<Exit> {
    let args::Drain { node, reason, wait } = args;
    coordinator.drain(&node, &reason).await?;
    output::note(&format!(
        "node {node} is draining: what runs there saves, stops and goes on elsewhere"
    ));
    if !wait {
        output::note("see it with `clade workers`");
        return Ok(Exit::Done);
    }
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        emptied = emptied(coordinator, &node) => emptied?,
        () = interrupts.next() => {
            output::note(&format!(
                "node {node} goes on draining without you; `clade uncordon {node}` ends that"
            ));
            return Ok(Exit::Interrupted);
        }
    }
    output::note(&format!("nothing runs on node {node} any more"));
    Ok(Exit::Done)
}

/// Returns once no worker of the node holds a rank; asks on while nobody answers.
async fn emptied(coordinator: &Coordinator, node: &str) -> Result<(), CallError> {
    let coordinator = coordinator.with(Patience::Once);
    let mut told = None;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let workers = match coordinator.workers().await {
            Ok(workers) => workers,
            Err(error) if error.may_pass() => continue,
            Err(error) => return Err(error),
        };
        let own = workers.iter().filter(|worker| worker.node == node);
        let busy: u32 = own.map(|worker| worker.busy).sum();
        if busy == 0 {
            return Ok(());
        }
        if told != Some(busy) {
            output::note(&format!("ranks that still run on node {node}: {busy}"));
            told = Some(busy);
        }
    }
}
