//! Nothing New on Closed Nodes: no gang is seated at a node that is cordoned or in quarantine, at a
//! worker without a stream, or on a device that was withdrawn.
//!
//! Without it a node that breaks gangs would go on breaking them.

use super::Change;
use crate::schedule::Node;

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    for (run, id, gang) in change.seated() {
        for seat in &gang.seats {
            let Some(worker) = change.after.workers.get(&seat.worker) else { continue };
            let node = change.after.nodes.get(&worker.offer.node);
            let is_closed = node.is_some_and(|node| !Node::is_open(node));
            let is_away = worker.lost_at.is_some() || worker.withdrawn.contains_key(&seat.slot);
            if is_closed || is_away {
                seen.push(format!("{run}/{id} was seated at {seat}"));
            }
        }
    }
    seen
}
