//! What a running coordinator tells Prometheus and the kubelet.
//!
//! [`Metrics`] is a handle: cheap to clone, safe to call from any task, never waiting on the
//! network. It decides nothing and reads no clock: durations and instants are arguments. Labels
//! are `&'static str` from closed sets, so an error's text, a worker's id or a run's name cannot
//! become one. [`serve`] answers `/metrics`, `/healthz` and `/readyz`.

mod health;
mod schedule;
mod server;
mod transactions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clade_core::schedule::Kept;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub(crate) use health::{Health, STALE, Verdict};
use schedule::Schedule;
pub(crate) use server::serve;
pub(crate) use transactions::Outcome;
use transactions::Transactions;

/// Counts of one label, whose value the caller takes from a closed set.
pub(crate) type Labelled<M> = Family<[(&'static str, &'static str); 1], M>;

/// A handle to everything that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    measured: Arc<Measured>,
}

#[derive(Debug)]
struct Measured {
    schedule: Schedule,
    transactions: Transactions,
    access_refusals: Labelled<prometheus_client::metrics::counter::Counter>,
    is_leader: Gauge,
    term: Gauge,
    health: Health,
    registry: Registry,
}

impl Metrics {
    /// Registers everything. `invariants` are all that are checked: each is shown as 0 from the
    /// start, as is each way of leaving, since an alert on an increase needs a first value.
    pub(crate) fn new(invariants: &[&'static str]) -> Self {
        let mut registry = Registry::with_prefix("clade");
        let schedule = Schedule::register(registry.sub_registry_with_prefix("schedule"));
        for invariant in invariants {
            drop(schedule.invariant_violations.get_or_create(&[("invariant", *invariant)]));
        }
        let transactions = Transactions::register(registry.sub_registry_with_prefix("state"));
        let access_refusals = Labelled::default();
        registry.sub_registry_with_prefix("access").register(
            "refusals",
            "Callers turned away before their request was looked at",
            access_refusals.clone(),
        );
        let leadership = registry.sub_registry_with_prefix("leadership");
        let is_leader = Gauge::default();
        leadership.register("is_leader", "1 while this process leads, else 0", is_leader.clone());
        let term = Gauge::default();
        leadership.register("term", "Newest term of leadership this process knows", term.clone());
        let measured = Measured {
            schedule,
            transactions,
            access_refusals,
            is_leader,
            term,
            health: Health::default(),
            registry,
        };
        Self { measured: Arc::new(measured) }
    }

    /// An event was taken in: decided, saved and acted on.
    pub(crate) fn event(&self, event: &'static str, took: Duration) {
        let Schedule { events, event_durations, .. } = &self.measured.schedule;
        events.get_or_create(&[("event", event)]).inc();
        event_durations.observe(took.as_secs_f64());
    }

    pub(crate) fn action(&self, action: &'static str) {
        self.measured.schedule.actions.get_or_create(&[("action", action)]).inc();
    }

    /// The scheduler refused a report that came too late.
    pub(crate) fn refusal(&self, reason: &'static str) {
        self.measured.schedule.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// A gang that was asked to save and leave has left.
    pub(crate) fn gang_left(&self, why: &'static str, kept: Kept) {
        let farewells = &self.measured.schedule.farewells;
        farewells.get_or_create(&schedule::labels(why, kept)).inc();
    }

    /// The coordinator found its own state broken: a defect of the program.
    pub(crate) fn invariant_violated(&self, invariant: &'static str) {
        let violations = &self.measured.schedule.invariant_violations;
        violations.get_or_create(&[("invariant", invariant)]).inc();
    }

    /// Workers by phase; name every phase each time, since one left out keeps its last count.
    pub(crate) fn workers(&self, counts: &[(&'static str, usize)]) {
        schedule::set_counts(&self.measured.schedule.workers, counts);
    }

    /// Works by phase; name every phase each time, since one left out keeps its last count.
    pub(crate) fn works(&self, counts: &[(&'static str, usize)]) {
        schedule::set_counts(&self.measured.schedule.works, counts);
    }

    /// What this leader has seen of seats: how many have failed, and how long they were taken by gangs.
    pub(crate) fn seats(&self, failures: u64, time: Duration) {
        let Schedule { seat_failures, seat_time, .. } = &self.measured.schedule;
        seat_failures.set(i64::try_from(failures).unwrap_or(i64::MAX));
        seat_time.set(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    }

    /// A transaction of `keys` keys ended; one of unknown outcome counts too.
    pub(crate) fn transaction(&self, outcome: Outcome, keys: usize, took: Duration) {
        self.measured.transactions.observe(outcome, keys, took);
    }

    /// A caller was turned away: no identity, a wrong one, an expired one, too weak a role.
    pub(crate) fn access_refused(&self, reason: &'static str) {
        self.measured.access_refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// This process took the lead of `term`.
    pub(crate) fn leads(&self, term: u64, now: Instant) {
        self.measured.is_leader.set(1);
        self.term(term);
        self.measured.health.leads(now);
    }

    /// The leader's loop came around once more.
    pub(crate) fn ticked(&self, now: Instant) {
        self.measured.health.ticked(now);
    }

    /// The leader's loop is well and waits for the state store, which does not answer or is full.
    pub(crate) fn waits(&self, now: Instant) {
        self.measured.health.waits(now);
    }

    /// This process follows the leader of `term`, and its copy of the state is as of `now`.
    pub(crate) fn follows(&self, term: u64, now: Instant) {
        self.measured.is_leader.set(0);
        self.term(term);
        self.measured.health.follows(now);
    }

    /// This process neither leads nor knows who does.
    pub(crate) fn lost_the_lead(&self) {
        self.measured.is_leader.set(0);
        self.measured.health.seeks();
    }

    pub(crate) fn health(&self) -> &Health {
        &self.measured.health
    }

    fn term(&self, term: u64) {
        // A term beyond i64 would take 292 years of one election per nanosecond.
        self.measured.term.set(i64::try_from(term).unwrap_or(i64::MAX));
    }

    /// Everything measured, as OpenMetrics text.
    fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.measured.registry).expect("writing into a string cannot fail");
        text
    }
}

#[cfg(test)]
mod tests;
