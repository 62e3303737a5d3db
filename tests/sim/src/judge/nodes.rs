//! Workers that are taken out, and what nodes are blamed for.

use clade_core::ids::{NodeName, Term};
use clade_core::schedule::{Effects, Trust};

use crate::coordinator::Leader;
use crate::setting::EPOCH;
use crate::world::World;

impl World {
    /// A worker is taken out only if it said so or was away for long enough.
    pub(super) fn judge_workers(&self, leader: &Leader, effects: &Effects) -> Option<String> {
        let limits = &self.setting.limits;
        let lost = effects.before.workers.iter().find(|(id, before)| {
            let is_out = before.is_some() && !leader.state.workers.contains_key(*id);
            is_out && !leader.told.may_be_lost(id, limits.reattach.0, limits.takeover.0)
        });
        lost.map(|(id, _)| format!("G6: {id} was declared lost too early"))
    }

    /// Quarantines are for nodes with a bad record, and for few.
    pub(super) fn judge_nodes(&self, leader: &Leader, effects: &Effects) -> Option<String> {
        let state = &leader.state;
        for (name, before) in &effects.before.nodes {
            let Some(node) = state.nodes.get(name) else { continue };
            if before.slower_percent.is_none()
                && node.slower_percent.is_some()
                && !self.judge.slow.contains(name)
            {
                return Some(format!("{name} is marked as slow, and never was"));
            }
            let Trust::Quarantined { until } = node.trust else { continue };
            // Doubled with each retest that failed.
            let failed = self.judge.quarantines.get(name).copied().unwrap_or(0);
            let length = self.setting.limits.quarantine.0 << failed.min(6);
            if let Trust::Quarantined { until: old } = before.trust {
                // A new leader shortens what was written by a clock that was ahead. Otherwise the old one
                // was over, and the retest failed at once.
                if until > old && until.0 < old.0 + length {
                    return Some(format!(
                        "{name} is to stay in quarantine until {until}, not {old}"
                    ));
                }
                continue;
            }
            let blamed: u32 = before.blame.values().sum();
            let lost = effects.before.workers.values().flatten();
            let lost = lost.filter(|it| it.offer.node == *name).count();
            // Gangs that this event ended, and that had failed here.
            let ended = effects.before.works.iter().filter(|((run, id), then)| {
                let now = state.work(run, *id);
                then.gang().is_some()
                    && now.is_some_and(|it| {
                        // Its next gang may have been seated by the same event.
                        let has_ended = it.gang().is_none() || it.incarnation != then.incarnation;
                        has_ended && it.avoid.as_ref() == Some(name)
                    })
            });
            let blamed = blamed + u32::try_from(lost + ended.count()).unwrap_or(u32::MAX);
            if before.trust == Trust::Full && blamed < 3 {
                return Some(format!("{name} is in quarantine after {blamed} failures"));
            }
            let nodes = state.workers.values().map(|it| &it.offer.node);
            let nodes = nodes.collect::<std::collections::BTreeSet<_>>().len();
            let is_away =
                |it: &clade_core::schedule::Node| matches!(it.trust, Trust::Quarantined { .. });
            let away = state.nodes.iter().filter(|(_, it)| is_away(it));
            let gone = effects.before.workers.values().filter(|it| it.is_some()).count();
            if away.clone().count() * 4 > nodes + gone {
                let away: Vec<&NodeName> = away.map(|(name, _)| name).collect();
                return Some(format!("of {nodes} nodes {away:?} are in quarantine"));
            }
            let time = EPOCH.saturating_add(self.now).saturating_add_signed(leader.offset);
            if until.0 < time + length {
                return Some(format!("{name} is in quarantine for too short a time"));
            }
        }
        None
    }

    /// Counts the quarantines of each node since it was last trusted.
    pub(super) fn note_nodes(&mut self, term: Term, effects: &Effects) {
        let Some(leader) = self.leaders.get(&term) else { return };
        for (name, before) in &effects.before.nodes {
            let trust = leader.state.nodes.get(name).map_or(&Trust::Full, |it| &it.trust);
            let failed = self.judge.quarantines.entry(name.clone()).or_default();
            match (trust, &before.trust) {
                (Trust::Full, _) => *failed = 0,
                (Trust::Quarantined { until }, Trust::Quarantined { until: old }) => {
                    *failed += u32::from(until > old);
                }
                (Trust::Quarantined { .. }, Trust::Full | Trust::Retest) => *failed += 1,
                (Trust::Retest, _) => (),
            }
        }
    }
}
