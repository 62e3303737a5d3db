//! Whole Gangs: a gang has all of its seats or none, and they are different ones (G1).
//!
//! Without it two gangs could each hold half and wait for each other for ever.

use std::collections::BTreeSet;

use super::Violation;
use crate::schedule::State;

pub(super) fn check(after: &State, found: &mut Vec<Violation>) {
    for run in after.runs.values() {
        for (&id, work) in &run.works {
            let Some(gang) = work.gang() else { continue };
            let different: BTreeSet<_> = gang.seats.iter().collect();
            if different.len() != gang.seats.len()
                || u32::try_from(gang.seats.len()) != Ok(run.ranks(id))
            {
                found.push(Violation(format!("{id} holds {} seats", gang.seats.len())));
            }
        }
    }
}
