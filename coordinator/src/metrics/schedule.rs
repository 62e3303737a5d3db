//! What the scheduler did: counted at the engine's one choke point.

use clade_core::schedule::{ASKED, Kept};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::Labelled;

/// Counts of gangs that left, by why they were asked and by what was kept of them.
type Farewells = Family<[(&'static str, &'static str); 2], Counter>;

#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) events: Labelled<Counter>,
    pub(super) event_durations: Histogram,
    pub(super) actions: Labelled<Counter>,
    pub(super) refusals: Labelled<Counter>,
    pub(super) farewells: Farewells,
    pub(super) invariant_violations: Labelled<Counter>,
    pub(super) workers: Labelled<Gauge>,
    pub(super) works: Labelled<Gauge>,
    pub(super) seat_failures: Gauge,
    pub(super) seat_time: Gauge,
}

impl Schedule {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let found = Self {
            events: Labelled::default(),
            // 10 µs to 2.6 s: a decision takes microseconds, its transaction milliseconds.
            event_durations: Histogram::new(exponential_buckets(10e-6, 4.0, 10)),
            actions: Labelled::default(),
            refusals: Labelled::default(),
            farewells: Farewells::default(),
            invariant_violations: Labelled::default(),
            workers: Labelled::default(),
            works: Labelled::default(),
            seat_failures: Gauge::default(),
            seat_time: Gauge::default(),
        };
        let Self {
            events,
            event_durations,
            actions,
            refusals,
            farewells,
            invariant_violations,
            workers,
            works,
            seat_failures,
            seat_time,
        } = &found;
        registry.register("events", "Events taken in, by kind", events.clone());
        registry.register_with_unit(
            "event_duration",
            "From an event to the end of what it caused, its transaction included",
            Unit::Seconds,
            event_durations.clone(),
        );
        registry.register("actions", "Actions performed, by kind", actions.clone());
        registry.register("refusals", "Late reports refused, by reason", refusals.clone());
        registry.register(
            "gangs_left",
            "Gangs that were asked to save and leave, by why and by whether they had saved",
            farewells.clone(),
        );
        for why in ASKED {
            for kept in Kept::EVERY {
                drop(farewells.get_or_create(&labels(why, kept)));
            }
        }
        registry.register(
            "invariant_violations",
            "Times an invariant did not hold after an event; anything but 0 is a defect",
            invariant_violations.clone(),
        );
        registry.register("workers", "Workers, by phase", workers.clone());
        registry.register("works", "Jobs and models, by phase", works.clone());
        registry.register(
            "seat_failures",
            "Gangs ended by a machine, device, process or link, as this leader has seen",
            seat_failures.clone(),
        );
        registry.register_with_unit(
            "seat_time",
            "How long gangs have trained, summed over their seats, as this leader has seen",
            Unit::Seconds,
            seat_time.clone(),
        );
        found
    }
}

pub(super) const fn labels(why: &'static str, kept: Kept) -> [(&'static str, &'static str); 2] {
    [("why", why), ("outcome", kept.name())]
}

pub(super) fn set_counts(family: &Labelled<Gauge>, counts: &[(&'static str, usize)]) {
    for (phase, count) in counts {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        family.get_or_create(&[("phase", *phase)]).set(count);
    }
}
