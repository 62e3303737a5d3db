//! What all worlds together must reach: every event, action, refusal, reason, cause and phase.

use std::collections::BTreeMap;

use clade_core::ids::{Millis, Term};
use clade_core::job::Outcome;
use clade_core::schedule::{
    Effects, Event, Phase, RunPhase, State, Stop, Trust, Verdict, Work, why_waiting,
};

use crate::setting::EPOCH;
use crate::world::World;

/// Counts by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

/// Everything that there is to reach.
pub const ALL: [(&str, &[&str]); 11] = [
    (
        "event",
        &[
            "took_lead",
            "applied",
            "cancel_requested",
            "node_cordoned",
            "node_uncordoned",
            "worker_attached",
            "worker_detached",
            "worker_left",
            "device_withdrawn",
            "rendezvous_posted",
            "checkpoint_reported",
            "progressed",
            "rank_exited",
            "inspected",
            "tick",
        ],
    ),
    (
        "action",
        &[
            "start_rank",
            "stop_rank",
            "share_rendezvous",
            "inspect",
            "collect",
            "refuse",
            "supersede",
        ],
    ),
    (
        "refusal",
        &[
            "unknown_work",
            "superseded",
            "never_started",
            "not_seated",
            "not_yours",
            "beyond_due",
            "unknown_worker",
            "worker_changed",
            "unknown_node",
        ],
    ),
    (
        "wait",
        &[
            "for",
            "blocked_by",
            "behind",
            "no_workers",
            "too_wide",
            "seats",
            "backoff",
            "run_stopping",
            "run_ended",
        ],
    ),
    (
        "stop",
        &[
            "rank_gone",
            "run_stopping",
            "preempted",
            "made_way",
            "drained",
            "device_withdrawn",
            "hung",
            "widened",
        ],
    ),
    (
        "failure",
        &[
            "data",
            "config",
            "storage",
            "crashed",
            "launch",
            "stalled",
            "peer_lost",
            "worker_lost",
            "worker_left",
            "no_progress",
        ],
    ),
    ("verdict", &["done", "stopped", "failed"]),
    ("left", &["saved", "not_saved", "nothing_to_save"]),
    ("trust", &["full", "quarantined", "retest"]),
    ("run", &["active", "stopping", "finished", "failed", "cancelled"]),
    ("stop_for", &["cancel", "failure", "resume"]),
];

impl Coverage {
    fn see(&mut self, kind: &'static str, name: &'static str) {
        *self.counts.entry((kind, name)).or_default() += 1;
    }

    /// Takes another world's in.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            *self.counts.entry(*key).or_default() += count;
        }
    }

    /// Everything seen, with how often.
    pub fn seen(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.counts.iter().map(|((kind, name), count)| (*kind, *name, *count))
    }

    /// What was never reached.
    pub fn missing(&self) -> Vec<String> {
        let all = ALL.iter().flat_map(|(kind, names)| names.iter().map(move |name| (*kind, *name)));
        let missing = all.filter(|key| !self.counts.contains_key(key));
        missing.map(|(kind, name)| format!("{kind} {name}")).collect()
    }

    /// Events that coordinators applied.
    pub fn events(&self) -> u64 {
        self.seen().filter(|(kind, ..)| *kind == "event").map(|(.., count)| count).sum()
    }

    fn work(&mut self, work: &Work) {
        match &work.phase {
            Phase::Stopping { cause, .. } => self.see("stop", cause.name()),
            Phase::Inspecting { verdict } => self.see(
                "verdict",
                match verdict {
                    Verdict::Done { .. } => "done",
                    Verdict::Stopped => "stopped",
                    Verdict::Failed { .. } => "failed",
                },
            ),
            Phase::Failed { failure } => self.see("failure", failure.name()),
            Phase::Waiting | Phase::Backoff { .. } | Phase::Running(_) | Phase::Done => (),
        }
        if let Some(failure) = &work.last_failure {
            self.see("failure", failure.name());
        }
    }
}

impl World {
    /// Notes what an event reached.
    pub(crate) fn cover(&mut self, term: Term, event: &Event, effects: &Effects) {
        let Some(leader) = self.leaders.get(&term) else { return };
        let (state, coverage): (&State, _) = (&leader.state, &mut self.coverage);
        coverage.see("event", event.name());
        if let Some(why) = &effects.refusal {
            coverage.see("refusal", why.name());
        }
        for action in &effects.actions {
            coverage.see("action", action.name());
        }
        for farewell in &effects.farewells {
            coverage.see("left", farewell.kept.name());
        }
        if let Event::RankExited { outcome: Outcome::Failed(failure), .. } = event {
            coverage.see("failure", failure.name());
        }
        for (run, id) in effects.before.works.keys() {
            if let Some(work) = state.work(run, *id) {
                coverage.work(work);
                if let Phase::Stopping { cause: Stop::Preempted { by, .. }, .. } = &work.phase {
                    let priority = |run| Some(state.runs.get(run)?.head.spec.spec.priority);
                    if priority(by) == priority(run) {
                        coverage.see("stop", "made_way");
                    }
                }
            }
        }
        for run in effects.before.phases.keys().filter_map(|name| state.runs.get(name)) {
            coverage.see("run", run.head.phase.name());
            if let RunPhase::Stopping { then } = &run.head.phase {
                coverage.see("stop_for", then.name());
            }
        }
        for node in effects.before.nodes.keys() {
            let trust = state.nodes.get(node).map_or(Trust::Full, |node| node.trust.clone());
            coverage.see("trust", trust.name());
        }
    }

    /// Asks of everything that waits why (G8), and keeps what waits for seats although some are free.
    pub(crate) fn ask_why(&mut self) {
        let Some(leader) = self.leader() else { return };
        let now = Millis((EPOCH + self.now).saturating_add_signed(leader.offset));
        let (mut seen, mut broken) = (Vec::new(), Vec::new());
        for (name, run) in &leader.state.runs {
            for (id, work) in &run.works {
                let waits = matches!(work.phase, Phase::Waiting | Phase::Backoff { .. });
                match why_waiting(&leader.state, name, *id, now) {
                    Some(why) if waits && !why.to_string().is_empty() => seen.push(why.name()),
                    Some(why) => broken.push(format!("G8: {name}/{id} does not wait, yet {why}")),
                    None if waits => broken.push(format!("G8: {name}/{id} waits for no reason")),
                    None => (),
                }
            }
        }
        for name in seen {
            self.coverage.see("wait", name);
        }
        for what in broken {
            self.broke(what);
        }
    }
}
