//! What could never be seated is refused when it is submitted, with what would fit.

use super::State;
use crate::ids::ModelId;
use crate::spec::{Requires, RunSpec};

/// A gang that no arrangement of the workers there are can seat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.gangs.{gang}.{field}: {ranks} seats{} are needed and the cluster has {seats}; {}",
    of(.requires), way_out(*.fits))]
pub struct Unplaceable {
    pub gang: &'static str,
    /// Where the document says so.
    pub field: &'static str,
    pub ranks: u32,
    pub requires: Requires,
    /// Seats that would do, of the kind of which there are most.
    pub seats: u32,
    /// The widest gang that fits and divides the global batch.
    pub fits: Option<u32>,
}

fn of(requires: &Requires) -> String {
    if requires.is_empty() { String::new() } else { format!(" with {requires}") }
}

fn way_out(fits: Option<u32>) -> String {
    let queue = "apply it with --queue to wait for more workers";
    fits.map_or_else(|| queue.to_owned(), |fits| format!("{fits} would fit, or {queue}"))
}

/// Judges whether every gang of `spec` could be seated by the workers there are. A cluster without any
/// worker is still starting, and takes everything.
pub fn admit(state: &State, spec: &RunSpec) -> Result<(), Unplaceable> {
    if state.workers.is_empty() {
        return Ok(());
    }
    let parts = spec.micro_batches();
    let jobs = ("ranks", 1, &spec.spec.gangs.jobs.requires);
    let of = |model| {
        let gang = spec.gang(model);
        let field = if gang.least() < gang.ranks { "minRanks" } else { "ranks" };
        (field, gang.least(), &gang.requires)
    };
    let all = [("seed", of(ModelId::Seed)), ("expert", of(ModelId::Expert(0))), ("jobs", jobs)];
    for (gang, (field, ranks, requires)) in all {
        let seats = state.index.capacity(&state.workers, requires);
        if ranks > seats {
            let fits = (1..=seats).rev().find(|fits| parts.is_multiple_of(*fits));
            return Err(Unplaceable {
                gang,
                field,
                ranks,
                requires: requires.clone(),
                seats,
                fits,
            });
        }
    }
    Ok(())
}
