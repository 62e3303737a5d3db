//! Few Objects per Step: one event changes no more than one transaction of etcd takes.
//!
//! Without it the largest decisions could not be saved at all.

use super::Change;
use crate::schedule::MAX_CHANGED;

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let count = change.effects.changed.len();
    if count > MAX_CHANGED { vec![format!("{count} objects changed")] } else { Vec::new() }
}
