//! Whole Gangs: a gang has all of its seats or none (as many as keep the batch, if it may have fewer), they are different ones, of one kind of device,
//! and offer what the document requires (G1).
//!
//! Without it two gangs could each hold half and wait for each other for ever.

use std::collections::BTreeSet;

use super::Change;

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    for (name, id, gang) in change.seated() {
        let Some(run) = change.after.runs.get(name) else { continue };
        let different: BTreeSet<_> = gang.seats.iter().collect();
        let ranks = u32::try_from(gang.seats.len()).unwrap_or(u32::MAX);
        let may_be = id.model().map_or(ranks == 1, |model| run.head.spec.may_have(model, ranks));
        if different.len() != gang.seats.len() || !may_be {
            seen.push(format!("{name}/{id} holds {} seats", gang.seats.len()));
        }
        let offers = gang.seats.iter().filter_map(|seat| change.after.workers.get(&seat.worker));
        let offers: Vec<_> = offers.map(|worker| &worker.offer).collect();
        if offers.iter().any(|offer| !run.requires(id).accepts(offer)) {
            seen.push(format!("{name}/{id} sits where its requirements are not met"));
        }
        let kinds: BTreeSet<&String> = offers.iter().map(|offer| &offer.kind).collect();
        if kinds.len() > 1 {
            seen.push(format!("{name}/{id} mixes {kinds:?}"));
        }
    }
    seen
}
