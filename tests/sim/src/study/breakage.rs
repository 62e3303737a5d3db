//! Machines that fail: how often, in which ways, and what follows by itself.

use clade_core::ids::Seat;
use clade_core::job::{Failure, Outcome};
use clade_core::order::Random;
use clade_core::schedule::{Event, Limits};

use super::costs::Costs;
use super::fleet::{Fleet, Happening, SLOTS, offer, worker_id};
use super::track::Doing;

const DAY: f64 = 86_400_000.0;

/// How GPUs fail.
#[derive(Clone, Debug)]
pub(crate) struct Breakage {
    /// Failures per GPU and day.
    pub(crate) rate: f64,
    /// Of a hundred failures, so many take their node down.
    pub(crate) nodes: u64,
    /// And so many let a gang hang.
    pub(crate) hangs: u64,
    pub(crate) random: Random,
}

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A process ends.
    Killed,
    /// A machine is gone until it is repaired.
    NodeLost,
    /// A gang takes no further step, and no process ends.
    Hung,
}

/// A failure that stopped a gang.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    pub(crate) kind: Kind,
    pub(crate) ranks: u32,
    /// Too few seats were free elsewhere: the gang must wait for the repair.
    pub(crate) waits: bool,
}

impl Kind {
    /// From the failure to when the core stops the gang, at best.
    pub(crate) fn notice_ms(self, costs: &Costs) -> u64 {
        let limits = Limits::default();
        match self {
            Self::Killed => costs.exit_ms,
            Self::NodeLost => costs.silence_ms + limits.reattach.0,
            Self::Hung => limits.hang.0,
        }
    }
}

impl Fleet {
    /// Draws when the next GPU fails.
    pub(super) fn plan_failure(&mut self) {
        let gpus = self.sites.len() * usize::try_from(SLOTS).unwrap_or(0);
        let gpus = f64::from(u32::try_from(gpus).expect("a fleet of thousands"));
        let Some(breakage) = &mut self.breakage else { return };
        let wait = -(1.0 - breakage.random.unit()).ln() * DAY / (breakage.rate * gpus);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time ahead")]
        let at = self.now + wait as u64;
        self.at(at, Happening::Fails);
    }

    /// One GPU fails, in one of the ways.
    pub(super) fn fails(&mut self) {
        self.plan_failure();
        let nodes = u64::try_from(self.sites.len()).expect("a fleet of thousands");
        let Some(breakage) = &mut self.breakage else { return };
        let node = usize::try_from(breakage.random.below(nodes)).expect("a fleet of thousands");
        let slot = u32::try_from(breakage.random.below(u64::from(SLOTS))).expect("few slots");
        let dice = breakage.random.below(100);
        let (lost, hung) = (breakage.nodes, breakage.nodes + breakage.hangs);
        if !self.sites[node].is_up {
            return;
        }
        if dice < lost {
            self.node_lost(node);
        } else if dice < hung {
            self.hung(node, slot);
        } else {
            self.killed(node, slot);
        }
    }

    /// Stops a gang, if it lives.
    fn hit(&mut self, track: usize, kind: Kind, waits: bool) {
        let it = &mut self.tracks[track];
        if it.is_live() {
            it.turn_to(self.now, Doing::Dead);
            self.hits.push(Hit { kind, ranks: it.ranks, waits });
        }
    }

    fn killed(&mut self, node: usize, slot: u32) {
        let worker = worker_id(node, self.sites[node].life);
        let seat = Seat { worker: worker.clone(), slot };
        let Some((run, work)) = self.state.holder(&seat) else { return };
        let Some(fence) = self.state.runs.get(run).and_then(|run| run.fence(work)) else { return };
        let gang = self.state.work(&fence.run, work).and_then(|work| work.gang());
        let rank = gang.and_then(|gang| gang.alive().find(|(_, it)| **it == seat));
        let Some((rank, _)) = rank else { return };
        if let Some(track) = self.track_of(&fence) {
            self.hit(track, Kind::Killed, false);
        }
        let outcome = Outcome::Failed(Failure::Crashed { rank, message: "signal 9".to_owned() });
        let at = self.now + self.costs.exit_ms;
        self.at(at, Happening::RankExits { worker, fence, rank, outcome });
    }

    fn hung(&mut self, node: usize, slot: u32) {
        let seat = Seat { worker: worker_id(node, self.sites[node].life), slot };
        let Some((run, work)) = self.state.holder(&seat) else { return };
        let Some(fence) = self.state.runs.get(run).and_then(|run| run.fence(work)) else { return };
        let Some(track) = self.track_of(&fence) else { return };
        if self.tracks[track].doing == Doing::Stepping {
            // The last step before was told, as every step is.
            self.report(track);
        }
        self.hit(track, Kind::Hung, false);
    }

    fn node_lost(&mut self, node: usize) {
        let worker = worker_id(node, self.sites[node].life);
        self.sites[node].is_up = false;
        for track in 0..self.tracks.len() {
            let seats = self.tracks[track].seats.iter();
            let lost = seats.filter(|seat| seat.worker == worker).count();
            if lost > 0 {
                let waits = self.free() < lost;
                self.hit(track, Kind::NodeLost, waits);
            }
        }
        self.at(self.now + self.costs.silence_ms, Happening::Detached { worker });
        self.at(self.now + self.costs.repair_ms, Happening::Returns { node });
    }

    /// A repaired machine has a new agent.
    pub(super) fn returns(&mut self, node: usize) {
        let site = &mut self.sites[node];
        site.is_up = true;
        site.life += 1;
        let worker = worker_id(node, site.life);
        let (withdrawn, ranks) = ([].into(), Vec::new());
        self.tell(Event::WorkerAttached { worker, offer: offer(node), withdrawn, ranks });
    }
}
