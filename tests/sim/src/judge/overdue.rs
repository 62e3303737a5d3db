//! What the scheduler owes to happen soon, and what lasts longer than it may.

use std::collections::BTreeMap;

use clade_core::ids::Millis;
use clade_core::schedule::{Phase, RunPhase, State, Trust};

use crate::setting::EPOCH;
use crate::world::World;

/// Seconds after which a gang that is to leave has been told so: seen once, it may be one of many.
const SOON: u32 = 1;

/// Seconds after which a quarantine has ended that was due.
const TICKED: u32 = 3;

/// Seconds that no rest lasts: the longest is six.
const REST: u32 = 12;

impl World {
    /// Judges once a second what is due in the state as it is.
    pub(crate) fn judge_overdue(&mut self) {
        // Who does not lead, or stands still, owes nothing.
        let Some(leader) = self.leader().filter(|it| !it.is_still) else {
            self.judge.overdue.clear();
            return;
        };
        let time = Millis((EPOCH + self.now).saturating_add_signed(leader.offset));
        let due = due(&leader.state, time);
        let before = std::mem::take(&mut self.judge.overdue);
        let mut broken = Vec::new();
        for (what, most) in due {
            let seconds = before.get(&what).map_or(1, |seconds| seconds + 1);
            if seconds > most {
                broken.push(format!("{what}, {seconds} s long"));
            }
            self.judge.overdue.insert(what, seconds);
        }
        for what in broken {
            self.broke(what);
        }
    }
}

/// What is due, with the seconds that it may stay so.
fn due(state: &State, time: Millis) -> BTreeMap<String, u32> {
    let mut due = BTreeMap::new();
    for (name, run) in &state.runs {
        let is_stopping = matches!(run.head.phase, RunPhase::Stopping { .. });
        for (id, work) in &run.works {
            let Phase::Running(gang) = &work.phase else {
                if matches!(work.phase, Phase::Backoff { .. }) {
                    let restarts = work.restarts;
                    due.insert(format!("{name}/{id} rests after {restarts} restarts"), REST);
                }
                continue;
            };
            if is_stopping {
                due.insert(format!("{name}/{id} runs while its run is stopping"), SOON);
            }
            for (_, seat) in gang.alive() {
                let Some(worker) = state.workers.get(&seat.worker) else { continue };
                let node = state.nodes.get(&worker.offer.node);
                if node.is_some_and(|node| node.draining) {
                    due.insert(format!("{name}/{id} runs at {seat}, which is drained"), SOON);
                }
                if worker.withdrawn.contains_key(&seat.slot) {
                    due.insert(format!("{name}/{id} runs on {seat}, which is withdrawn"), SOON);
                }
            }
        }
    }
    for (name, node) in &state.nodes {
        if matches!(node.trust, Trust::Quarantined { until } if until < time) {
            due.insert(format!("the quarantine of {name} is over and goes on"), TICKED);
        }
    }
    due
}
