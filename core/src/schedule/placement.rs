//! Who sits where: whole gangs or nothing.
//!
//! Jobs go before models, since they are short and experts wait for them. Models go by the work
//! left to them, longest first, so that the last to finish started early. A gang that does not
//! fit yet is not overtaken by another gang, so no width can starve it.

use std::collections::BTreeMap;

use super::step::Stepper;
use super::{Action, Gang, Phase, RunPhase};
use crate::ids::{Millis, RunName, Seat, WorkId, WorkerId};

/// A work that could start if there were seats for it; ordered by who goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ready {
    is_model: bool,
    /// Steps left, negated: more left goes first.
    left: std::cmp::Reverse<u64>,
    created: Millis,
    pub(super) run: RunName,
    pub(super) work: WorkId,
    pub(super) ranks: u32,
}

/// Every ready work, first to go first.
pub(super) fn ready(state: &super::State) -> Vec<Ready> {
    let mut ready = Vec::new();
    for (name, run) in &state.runs {
        if run.head.phase != RunPhase::Active {
            continue;
        }
        let (plan, done) = (run.plan(), run.done_stages());
        for (&id, work) in &run.works {
            if work.phase != Phase::Waiting || !run.missing(id, &plan, &done).is_empty() {
                continue;
            }
            let left = id
                .model()
                .map_or(0, |model| run.due(model).0.saturating_sub(work.committed_step().0));
            ready.push(Ready {
                is_model: id.model().is_some(),
                left: std::cmp::Reverse(left),
                created: run.head.created,
                run: name.clone(),
                work: id,
                ranks: run.ranks(id),
            });
        }
    }
    ready.sort();
    ready
}

/// Free slots of every worker that has a stream.
pub(super) fn free_slots(state: &super::State) -> BTreeMap<WorkerId, Vec<u32>> {
    let taken = state.taken();
    let attached = state.workers.iter().filter(|(_, worker)| worker.lost_at.is_none());
    attached
        .map(|(id, worker)| {
            let is_free =
                |slot: &u32| !taken.contains_key(&Seat { worker: id.clone(), slot: *slot });
            (id.clone(), (0..worker.slots).filter(is_free).collect())
        })
        .collect()
}

/// Takes `ranks` seats, or none: the fullest worker that still holds the whole gang, else the
/// emptiest workers first, so that the gang lies on few of them.
fn take(free: &mut BTreeMap<WorkerId, Vec<u32>>, ranks: u32) -> Option<Vec<Seat>> {
    let ranks = usize::try_from(ranks).ok()?;
    let whole = free
        .iter()
        .filter(|(_, slots)| slots.len() >= ranks)
        .min_by_key(|(id, slots)| (slots.len(), (*id).clone()))
        .map(|(id, _)| vec![id.clone()]);
    let order = whole.unwrap_or_else(|| {
        let mut workers: Vec<(std::cmp::Reverse<usize>, WorkerId)> =
            free.iter().map(|(id, slots)| (std::cmp::Reverse(slots.len()), id.clone())).collect();
        workers.sort();
        workers.into_iter().map(|(_, id)| id).collect()
    });
    let seats: Vec<Seat> = order
        .iter()
        .flat_map(|id| free[id].iter().map(|&slot| Seat { worker: id.clone(), slot }))
        .take(ranks)
        .collect();
    if seats.len() < ranks {
        return None;
    }
    for seat in &seats {
        if let Some(slots) = free.get_mut(&seat.worker) {
            slots.retain(|slot| *slot != seat.slot);
        }
    }
    Some(seats)
}

impl Stepper<'_> {
    /// Seats every ready work that fits.
    pub(super) fn place(&mut self) {
        let mut free = free_slots(self.state);
        if free.values().all(Vec::is_empty) {
            return;
        }
        let slots: u32 = self.state.workers.values().map(|worker| worker.slots).sum();
        let mut is_gang_waiting = false;
        for Ready { run, work, ranks, is_model, .. } in ready(self.state) {
            if is_model && is_gang_waiting {
                continue;
            }
            let Some(seats) = take(&mut free, ranks) else {
                // One that is wider than all workers together waits for more of them, alone.
                is_gang_waiting |= is_model && ranks <= slots;
                continue;
            };
            if let Some(found) = self.work_mut(&run, work) {
                let gang = Gang { seats: seats.clone(), exited: BTreeMap::new(), rendezvous: None };
                found.phase = Phase::Running(gang);
            }
            for (rank, seat) in (0..).zip(seats) {
                if let Some(start) = self.start(&run, work, rank, seat) {
                    self.act(Action::StartRank(start));
                }
            }
        }
    }
}
