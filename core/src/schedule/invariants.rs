//! What must hold after every event, one property per file, checked by the property tests and
//! counted by a running coordinator.

mod committed_never_goes_back;
mod new_gang_new_fence;
mod one_rank_per_seat;
mod starts_only_after_its_needs;
mod whole_gangs;

use super::State;

/// A broken invariant, said for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// Every invariant that the step from `before` to `after` broke.
pub fn violations(before: &State, after: &State) -> Vec<Violation> {
    let mut found = Vec::new();
    committed_never_goes_back::check(before, after, &mut found);
    new_gang_new_fence::check(before, after, &mut found);
    one_rank_per_seat::check(after, &mut found);
    starts_only_after_its_needs::check(before, after, &mut found);
    whole_gangs::check(after, &mut found);
    found
}

#[cfg(test)]
mod tests;
