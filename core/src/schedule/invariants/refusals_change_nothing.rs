//! Refusals Change Nothing: what is refused has no effect, and whoever said it is told (G2, G10).
//!
//! Without it a zombie's word could move the state of its successor.

use super::Change;
use crate::schedule::Action;

pub(super) fn check(change: &Change<'_>) -> Vec<String> {
    let Some(why) = &change.effects.refusal else { return Vec::new() };
    let mut seen = Vec::new();
    if !change.effects.changed.is_empty() {
        seen.push(format!("`{why}` changed {:?}", change.effects.changed));
    }
    if !change.effects.actions.iter().all(|action| matches!(action, Action::Refuse { .. })) {
        seen.push(format!("`{why}` led to {:?}", change.effects.actions));
    }
    seen
}
