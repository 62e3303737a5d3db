//! Failover Restarts Nothing: taking the lead changes no work, and terms only grow (G5).
//!
//! Without it every restart of a coordinator would cost the fleet a checkpoint interval.

use super::Change;

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    let (then, now) = (change.effects.before.term, change.after.term);
    if now < then {
        seen.push(format!("term {then} became {now}"));
    }
    if change.about.name == "took_lead" && then < now {
        let stopped = change.works().filter(|(_, _, then, now)| {
            then.gang().is_some() && now.incarnation != then.incarnation
                || then.gang().is_some() && now.gang() != then.gang()
        });
        seen.extend(stopped.map(|(run, id, ..)| format!("{run}/{id} was stopped by a failover")));
    }
    seen
}
