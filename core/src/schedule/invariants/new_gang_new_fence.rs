//! New Gang, New Fence: seats never change hands under the same incarnation.
//!
//! Without it a stopped gang could still commit, and two histories of one model would interleave.

use super::Violation;
use crate::schedule::{Gang, State};

pub(super) fn check(before: &State, after: &State, found: &mut Vec<Violation>) {
    for (name, run) in &after.runs {
        for (id, now) in &run.works {
            let Some(then) = before.work(name, *id) else { continue };
            let seats = |gang: Option<&Gang>| gang.map(|gang| gang.seats.clone());
            let (seated, sat) = (seats(now.gang()), seats(then.gang()));
            let is_new_gang = seated.is_some() && sat.is_some() && seated != sat;
            let reuses = is_new_gang && now.incarnation == then.incarnation;
            if now.incarnation < then.incarnation || reuses {
                found
                    .push(Violation(format!("{name}/{id} reuses incarnation {}", now.incarnation)));
            }
        }
    }
}
