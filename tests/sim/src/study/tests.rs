//! The accounts of the study add up, and would not if a line were left out.

use clade_core::ids::Millis;
use clade_core::order::Random;

use super::breakage::Breakage;
use super::costs::Costs;
use super::failures::{Mix, cost};
use super::fleet::{Fleet, SLOTS};
use super::ledger::Ledger;
use super::makespan::{Kind, Trace};
use super::setup::RunPlan;
use super::track::Track;

const DAY: u64 = 86_400_000;

fn plan(name: &str, ranks: u32, steps: &[u64]) -> RunPlan {
    RunPlan {
        name: name.to_owned(),
        ranks,
        least: ranks,
        step_ms: 1_000,
        shown_ms: None,
        steps: steps.to_vec(),
        begun: vec![],
    }
}

/// Four nodes with more gangs than fit, of which one fails every few minutes.
fn broken(seed: u64) -> Fleet {
    let random = Random::new(seed);
    let breakage = Breakage { rate: 9.0, nodes: 30, hangs: 10, random };
    let plans = [plan("narrow", 8, &[9_000, 4_000, 2_000]), plan("wide", 16, &[6_000, 5_000])];
    let mut fleet = Fleet::new(&plans, 4, Costs::default(), 120_000).audited().breaking(breakage);
    fleet.play(DAY).unwrap_or_else(|| panic!("seed {seed}: not done in a day"));
    fleet
}

/// Seat-milliseconds that the core held and the ledger does not know of.
fn imbalance(fleet: &Fleet, ledger: Ledger) -> i128 {
    i128::from(fleet.held) - i128::from(ledger.seated()) - i128::from(fleet.jobs)
}

#[test]
fn every_seat_that_the_core_held_is_in_the_ledger_whatever_failed() {
    let mut all = Ledger::default();
    for seed in 0..20 {
        let fleet = broken(seed);
        let Fleet { ledger, hits, refusals, now, .. } = &fleet;
        assert!(hits.len() > 10, "seed {seed}: only {} failures", hits.len());
        assert_eq!(*refusals, 0, "seed {seed}");
        assert_eq!(imbalance(&fleet, *ledger), 0, "seed {seed}: {ledger:?}");
        let ideal: u64 = fleet.tracks.iter().map(Track::ideal).sum();
        assert_eq!(ledger.useful, ideal, "seed {seed}: each step is kept once");
        assert!(ledger.seated() + fleet.jobs <= now * u64::from(4 * SLOTS), "seed {seed}");
        all += *ledger;
    }
    // Had nothing been lost in some way, its line would not have been tested.
    let Ledger { useful, redone, saving, starting, dead, turning, short, .. } = all;
    assert!([useful, redone, saving, starting, dead, turning, short].iter().all(|it| *it > 0));
}

#[test]
fn a_ledger_that_leaves_a_line_out_does_not_balance() {
    let fleet = broken(3);
    let whole = fleet.ledger;
    for thief in [
        Ledger { redone: 0, ..whole },
        Ledger { saving: 0, ..whole },
        Ledger { starting: 0, ..whole },
        Ledger { dead: 0, ..whole },
    ] {
        assert_ne!(imbalance(&fleet, thief), 0, "{thief:?}");
    }
}

#[test]
fn an_undisturbed_expert_takes_its_steps_one_start_and_its_checkpoints() {
    let costs = Costs::default();
    let mut fleet = Fleet::new(&[plan("alone", 8, &[1_000])], 1, costs, 300_000);
    // Checkpoints begin every five minutes: three of them before the last.
    let took = costs.start_ms + 1_000_000 + 4 * costs.save_ms + costs.upload_ms;
    assert_eq!(fleet.play(DAY), Some(took));
    assert_eq!(costs.least_ms(1_000_000, 1_000, 300_000), took);
    assert_eq!(fleet.ledger.useful, 8 * 1_000_000);
    assert_eq!(fleet.ledger.lost(), 8 * (took - 1_000_000));
}

#[test]
fn three_equal_experts_on_seats_for_two_end_near_the_bound_because_one_makes_way() {
    let hours = 3_600;
    let plans = [plan("three", 8, &[8 * hours, 8 * hours, 8 * hours])];
    let bound = 12 * 3_600_000;
    let mut fleet = Fleet::new(&plans, 2, Costs::default(), 600_000).audited();
    let end = fleet.play(2 * DAY).expect("done in two days");
    assert!(end * 100 < bound * 105, "{end} ms of {bound} ms");
    let mut fleet = Fleet::new(&plans, 2, Costs::default(), 600_000).audited();
    fleet.limits.way = Millis(u64::MAX);
    let end = fleet.play(2 * DAY).expect("done in two days");
    assert!(end * 100 > bound * 130, "nobody made way, and yet {end} ms of {bound} ms");
}

#[test]
fn failures_cost_little_more_than_they_must_on_a_small_fleet() {
    let mix = Mix { lost_percent: 0, hung_percent: 20 };
    let plan = plan("small", 32, &[400_000, 300_000]);
    let it = cost(plan, 8, 200.0, mix, 5, Costs::default());
    let ratio = it.ledger.lost() as f64 / (it.saving + it.failing);
    assert!(it.hits.len() > 50, "{} failures", it.hits.len());
    assert!((0.8..1.2).contains(&ratio), "{ratio}");
}

#[test]
fn no_trace_ends_before_its_bound() {
    for seed in 0..4 {
        let trace = Trace::draw(seed, Kind::Usual);
        let (area, longest) = trace.bounds();
        let end = trace.play(Costs::default()) as f64;
        assert!(end > area.max(longest), "seed {seed}: {end} ms of {area} and {longest} ms");
    }
}

#[test]
fn a_gang_with_half_its_ranks_takes_twice_as_long_and_the_accounts_add_up() {
    let hour = 3_600;
    let mut elastic = plan("elastic", 16, &[hour]);
    elastic.least = 8;
    // One machine of two is there: it does not wait for the other.
    let mut fleet = Fleet::new(&[elastic.clone()], 1, Costs::default(), 600_000).audited();
    let end = fleet.play(DAY).expect("done in a day");
    assert!((7_200_000..7_400_000).contains(&end), "{end} ms");
    assert_eq!(fleet.ledger.useful, 16 * 3_600_000);
    assert_eq!(imbalance(&fleet, fleet.ledger), 0);
    // A second one that is short has the other half first; then the first is widened.
    elastic.steps.push(hour / 4);
    let mut fleet = Fleet::new(&[elastic], 2, Costs::default(), 600_000).audited();
    let end = fleet.play(DAY).expect("done in a day");
    assert!(end < 5_400_000, "{end} ms: nobody was widened");
    assert_eq!(imbalance(&fleet, fleet.ledger), 0);
}
