//! Where gangs are seated, and before whom.

use clade_core::ids::{NodeName, RunName, Seat, WorkId};
use clade_core::schedule::{Gang, Phase, Run, RunPhase, State, Trust, Work};

use crate::coordinator::Leader;
use crate::world::World;

impl World {
    /// Where a gang was seated: on one worker if one could hold it, and before whoever is less urgent.
    pub(super) fn judge_seats(
        &self,
        leader: &Leader,
        run: &Run,
        id: WorkId,
        then: &Work,
        now: &Work,
    ) -> Option<String> {
        let Phase::Running(gang) = &now.phase else { return None };
        if matches!(then.phase, Phase::Running(_)) {
            return None;
        }
        let state = &leader.state;
        let requires = run.requires(id);
        let name = run.name();
        let is_one = gang.seats.iter().all(|seat| seat.worker == gang.seats[0].worker);
        let ranks = gang.seats.len();
        let is_slow = |node: &NodeName| {
            now.avoid.as_ref() == Some(node)
                || state.nodes.get(node).is_some_and(|it| {
                    it.slower_percent.is_some() || it.trust != Trust::Full || it.cordoned.is_some()
                })
        };
        if let Some(node) = Self::tests_two(state, gang, name, id) {
            return Some(format!("{name}/{id} is the second that {node} is tested with"));
        }
        // Seats of another kind may be kept for whoever goes first there.
        let kind = state.workers.get(&gang.seats[0].worker).map(|it| &it.offer.kind);
        let could = state.workers.iter().find(|(worker, it)| {
            let usable = usize::try_from(it.usable()).unwrap_or(0);
            let free = usable.saturating_sub(state.busy(worker));
            it.lost_at.is_none()
                && Some(&it.offer.kind) == kind
                && requires.accepts(&it.offer)
                && !is_slow(&it.offer.node)
                && free >= ranks
        });
        if let Some((worker, _)) = could.filter(|_| !is_one) {
            return Some(format!("{name}/{id} is spread although {worker} could hold it"));
        }
        let is_alone = !state.runs.iter().any(|(other, waiting)| {
            waiting.works.iter().any(|(it, work)| {
                it.model().is_some()
                    && (other, it) != (name, &id)
                    && work.phase == Phase::Waiting
                    && state.missing(other, *it).is_empty()
            })
        });
        let spare = state.workers.iter().filter(|(_, it)| {
            it.lost_at.is_none()
                && Some(&it.offer.kind) == kind
                && requires.accepts(&it.offer)
                && !is_slow(&it.offer.node)
        });
        let spare = spare.map(|(worker, it)| {
            usize::try_from(it.usable()).unwrap_or(0).saturating_sub(state.busy(worker))
        });
        let most = u32::try_from(ranks + spare.sum::<usize>()).ok()?;
        if run.widest(id, most).is_some_and(|wider| wider as usize > ranks) && is_alone {
            return Some(format!("{name}/{id} has {ranks} seats although it could have more"));
        }
        let training = &run.head.spec.spec.training;
        let parts = (training.global_batch / training.micro_batch) as usize;
        if id.model().is_some() && !parts.is_multiple_of(ranks) {
            return Some(format!("{name}/{id} has {ranks} seats for {parts} micro-batches"));
        }
        let priority = run.head.spec.spec.priority;
        let offer = |seat: &Seat| state.workers.get(&seat.worker).map(|it| &it.offer);
        for (other, waiting) in &state.runs {
            if waiting.head.spec.spec.priority <= priority || waiting.head.phase != RunPhase::Active
            {
                continue;
            }
            let ready = waiting.works.iter().filter(|(it, work)| {
                work.phase == Phase::Waiting && state.missing(other, **it).is_empty()
            });
            for (ahead, _) in ready {
                // All of one kind: if they would do for the other, it was to have them.
                let requires = waiting.requires(*ahead);
                let good = gang.seats.iter().filter_map(offer).filter(|it| requires.accepts(it));
                if u32::try_from(good.count()).is_ok_and(|good| good >= waiting.ranks(*ahead)) {
                    return Some(format!("{name}/{id} was seated before {other}/{ahead}"));
                }
            }
        }
        None
    }

    /// A node of the gang's that is being tested, and where something else sits already.
    fn tests_two<'a>(
        state: &'a State,
        gang: &'a Gang,
        name: &RunName,
        id: WorkId,
    ) -> Option<&'a NodeName> {
        let node = |seat: &Seat| state.workers.get(&seat.worker).map(|it| &it.offer.node);
        let is_tested =
            |it: &&NodeName| state.nodes.get(*it).is_some_and(|it| it.trust == Trust::Retest);
        gang.seats.iter().filter_map(node).find(|it| {
            is_tested(it)
                && state
                    .taken()
                    .any(|(seat, run, work)| (run, work) != (name, id) && node(&seat) == Some(*it))
        })
    }
}
