//! Wrong workers: stale and invented fences, other workers' ranks, steps that cannot be, stolen ids.
//! Each lie must be refused by its reason, and change nothing.

use std::collections::BTreeMap;

use clade_core::ids::{
    CheckpointRef, Digest, Fence, Incarnation, NodeName, Step, WorkId, WorkerId,
};
use clade_core::job::Outcome;
use clade_core::schedule::{Event, Offer, Phase};

use crate::world::World;

impl World {
    /// Tells one lie to whoever leads.
    pub(crate) fn lie(&mut self) -> bool {
        let Some((event, expected)) = self.invent() else { return false };
        let term = self.database.guard;
        let Some(leader) = self.leaders.get(&term).filter(|it| !it.is_still) else { return false };
        let (runs, nodes) = (leader.state.runs.clone(), leader.state.nodes.clone());
        let workers: Vec<WorkerId> = leader.state.workers.keys().cloned().collect();
        self.last_refusal = None;
        self.event(term, event.clone());
        if self.last_refusal != Some(expected) {
            self.broke(format!(
                "{expected} was to be the answer to {event:?}: {:?}",
                self.last_refusal
            ));
        }
        let Some(leader) = self.leaders.get(&term) else { return true };
        let is_same = leader.state.runs == runs
            && leader.state.nodes == nodes
            && leader.state.workers.keys().eq(&workers);
        if !is_same {
            self.broke(format!("a lie changed something: {event:?}"));
        }
        true
    }

    fn draw(&mut self, count: usize) -> Option<usize> {
        let below = u64::try_from(count).ok().filter(|it| *it > 0)?;
        usize::try_from(self.random.below(below)).ok()
    }

    /// A lie about what is there, and the refusal it deserves.
    fn invent(&mut self) -> Option<(Event, &'static str)> {
        let workers: Vec<(WorkerId, Offer)> = {
            let known = self.leader()?.state.workers.iter();
            known.map(|(id, worker)| (id.clone(), worker.offer.clone())).collect()
        };
        let liar = self.draw(workers.len())?;
        let (worker, offer) = workers[liar].clone();
        let running: Vec<(Fence, Vec<WorkerId>, u64)> = {
            let runs = self.leader()?.state.runs.values();
            let is_known = |worker: &WorkerId| workers.iter().any(|(id, _)| id == worker);
            let gangs = runs.flat_map(|run| {
                run.works.iter().filter_map(|(id, work)| {
                    let Phase::Running(gang) = &work.phase else { return None };
                    // Of one whose rank has ended the worker may be gone, and is not asked further.
                    gang.seats.iter().all(|seat| is_known(&seat.worker)).then_some(())?;
                    let seats = gang.seats.iter().map(|seat| seat.worker.clone()).collect();
                    Some((run.fence(*id)?, seats, id.model().map_or(0, |model| run.due(model).0)))
                })
            });
            gangs.collect()
        };
        let kind = self.random.below(10);
        match kind {
            0 => {
                let node = NodeName("n99".to_owned());
                let reason = "a typo".to_owned();
                return Some((Event::NodeCordoned { node, reason, drain: false }, "unknown_node"));
            }
            1 => {
                let offer = Offer { secret: "stolen".to_owned(), ..offer };
                let (withdrawn, ranks) = (BTreeMap::new(), Vec::new());
                return Some((
                    Event::WorkerAttached { worker, offer, withdrawn, ranks },
                    "worker_changed",
                ));
            }
            _ => (),
        }
        let at = self.draw(running.len())?;
        let (fence, seats, due) = running[at].clone();
        let first = seats.first()?.clone();
        let exited = |worker, fence, rank| Event::RankExited {
            worker,
            fence,
            rank,
            outcome: Outcome::Stopped,
        };
        let written = |fence: &Fence, step| CheckpointRef {
            model: fence.work.model().unwrap_or(clade_core::ids::ModelId::Seed),
            incarnation: fence.incarnation,
            step: Step(step),
            manifest: Digest([7; 32]),
        };
        let is_model = fence.work.model().is_some();
        Some(match kind {
            2 => {
                let fence = Fence { run: "nosuch".parse().expect("a run's name"), ..fence };
                (exited(first, fence, 0), "unknown_work")
            }
            3 => {
                let incarnation =
                    Incarnation(fence.incarnation.0.checked_sub(1).filter(|it| *it > 0)?);
                let fence = Fence { incarnation, ..fence };
                if is_model && self.random.below(2) == 0 {
                    let checkpoint = written(&fence, due);
                    (Event::CheckpointReported { worker: first, fence, checkpoint }, "superseded")
                } else {
                    (exited(first, fence, 0), "superseded")
                }
            }
            4 => {
                let incarnation = Incarnation(fence.incarnation.0 + 1 + self.random.below(3));
                let fence = Fence { incarnation, ..fence };
                if is_model && self.random.below(2) == 0 {
                    let checkpoint = written(&fence, due);
                    (
                        Event::CheckpointReported { worker: first, fence, checkpoint },
                        "never_started",
                    )
                } else {
                    (exited(first, fence, 0), "never_started")
                }
            }
            5 => (exited(first, fence, 77), "not_seated"),
            6 if worker != first => match (is_model, self.random.below(3)) {
                (true, 0) => {
                    let checkpoint = written(&fence, due);
                    (Event::CheckpointReported { worker, fence, checkpoint }, "not_yours")
                }
                (true, 1) => {
                    let address = "elsewhere:1".into();
                    (Event::RendezvousPosted { worker, fence, address }, "not_yours")
                }
                _ => (exited(worker, fence, 0), "not_yours"),
            },
            7 if is_model && self.random.below(2) == 0 => {
                let event =
                    Event::Progressed { worker: first, fence, rank: 0, done: due + 1, busy_us: 1 };
                (event, "beyond_due")
            }
            7 if is_model => {
                let checkpoint = written(&fence, due + 3);
                (Event::CheckpointReported { worker: first, fence, checkpoint }, "beyond_due")
            }
            8 => (exited(WorkerId("nobody".to_owned()), fence, 0), "unknown_worker"),
            9 if is_model => {
                let other = Fence {
                    work: WorkId::Model(clade_core::ids::ModelId::Expert(99_999)),
                    ..fence.clone()
                };
                let checkpoint = written(&other, due);
                (Event::CheckpointReported { worker: first, fence, checkpoint }, "unknown_work")
            }
            _ => return None,
        })
    }
}
