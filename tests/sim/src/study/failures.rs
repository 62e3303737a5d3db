//! What failures cost 16 experts of skewed size on 1,024 GPUs, against what they must cost.
//!
//! The floor is checkpoints + failures x width x (notice + start + half an interval). It knows nothing of
//! stopping the other ranks, listing the store, resting between tries, uploads that were not through and
//! first starts: those are the product's, and are lost. A machine that is gone is not replaced, since there
//! is none: its gang waits until it is back. That wait is no scheduler's to shorten. It is printed apart,
//! and judged with the repair in the floor, where no other seats were free.

use clade_core::order::Random;

use super::breakage::{Breakage, Hit, Kind};
use super::costs::Costs;
use super::fleet::Fleet;
use super::for_each;
use super::ledger::Ledger;
use super::mark::{mark, say};
use super::setup::RunPlan;

const NODES: usize = 128;
const EXPERTS: u64 = 16;
const RANKS: u32 = 64;
const STEP_MS: u64 = 1_000;
/// Steps of the largest expert: ten days.
const LARGEST: f64 = 864_000.0;
/// Failures per GPU and day.
const RATE: f64 = 0.0027;
const DAY_MS: f64 = 86_400_000.0;
/// Nothing takes a year.
const LIMIT_MS: u64 = 365 * 86_400_000;

/// Of a hundred failures, so many of each of the rarer kinds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) lost_percent: u64,
    pub(crate) hung_percent: u64,
}

/// What one run of the experts came to, in GPU-milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    pub(crate) ledger: Ledger,
    pub(crate) hits: Vec<Hit>,
    /// What checkpoints must cost.
    pub(crate) saving: f64,
    /// What failures must cost beyond.
    pub(crate) failing: f64,
    /// What waiting for repairs must cost.
    pub(crate) repairing: f64,
}

/// The experts: sizes fall with the square root of their rank, so that the largest is four times the
/// smallest.
pub(crate) fn experts(seed: u64) -> RunPlan {
    let mut order: Vec<u64> = (1..=EXPERTS).collect();
    Random::new(seed).shuffle(&mut order);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a number of steps"
    )]
    let steps = order.into_iter().map(|at| (LARGEST / (at as f64).sqrt()) as u64).collect();
    let (step_ms, shown_ms) = (STEP_MS, Some(STEP_MS));
    let (ranks, least) = (RANKS, RANKS);
    RunPlan { name: "experts".to_owned(), ranks, least, step_ms, shown_ms, steps, begun: vec![] }
}

/// Plays one run to its end, at `factor` times the rate of failures.
pub(crate) fn cost(
    plan: RunPlan,
    nodes: usize,
    factor: f64,
    mix: Mix,
    seed: u64,
    costs: Costs,
) -> Cost {
    let rate = RATE * factor;
    let interval = costs.young_ms(DAY_MS / (rate * f64::from(plan.ranks)));
    let Mix { lost_percent, hung_percent } = mix;
    let random = Random::new(seed);
    let breakage = Breakage { rate, nodes: lost_percent, hangs: hung_percent, random };
    let mut fleet = Fleet::new(&[plan], nodes, costs, interval).breaking(breakage);
    fleet
        .play(LIMIT_MS)
        .unwrap_or_else(|| panic!("seed {seed}: the experts are not done in a year"));
    assert_eq!(fleet.refusals, 0, "seed {seed}: the scheduler refused what the fleet told it");
    let Fleet { ledger, hits, .. } = fleet;
    let float = |ms: u64| ms as f64;
    let saving = float(ledger.useful) * float(costs.save_ms) / float(interval - costs.save_ms);
    let (mut failing, mut repairing) = (0.0, 0.0);
    for Hit { kind, ranks, waits } in &hits {
        let notice = kind.notice_ms(&costs);
        failing += f64::from(*ranks) * float(notice + costs.start_ms + interval / 2);
        if *waits {
            repairing += f64::from(*ranks) * float(costs.repair_ms.saturating_sub(notice));
        }
    }
    Cost { ledger, hits, saving, failing, repairing }
}

/// Prints what failures cost at the usual rate, and at 10 and 100 times that.
pub(crate) fn run(seed: u64, repeats: u64, mix: Mix, costs: Costs) {
    if repeats == 0 {
        return;
    }
    for factor in [1.0, 10.0, 100.0] {
        let interval = costs.young_ms(DAY_MS / (RATE * factor * f64::from(RANKS)));
        let play = |seed| cost(experts(seed), NODES, factor, mix, seed, costs);
        let all = for_each(seed..seed + repeats, play);
        say(format_args!(
            "failures x{factor}: 16 experts of 64 ranks on 1,024 GPUs, {} % per GPU and day, seeds {seed} to {}, \
             a checkpoint every {} s",
            RATE * factor * 100.0,
            seed + repeats - 1,
            interval / 1_000
        ));
        report(&format!("x{factor}"), &all);
    }
}

fn report(name: &str, all: &[Cost]) {
    let mut ledger = Ledger::default();
    let (mut saving, mut failing, mut repairing) = (0.0, 0.0, 0.0);
    for it in all {
        ledger += it.ledger;
        saving += it.saving;
        failing += it.failing;
        repairing += it.repairing;
    }
    let of = |kind| all.iter().flat_map(|it| &it.hits).filter(|hit| hit.kind == kind).count();
    let (killed, lost, hung) = (of(Kind::Killed), of(Kind::NodeLost), of(Kind::Hung));
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let Ledger { useful, redone, saving: saved, starting, dead, turning, short, withheld } = ledger;
    say(format_args!(
        "  gangs stopped {}: {killed} ranks killed, {lost} nodes lost, {hung} hangs",
        killed + lost + hung
    ));
    say(format_args!(
        "  lost GPU-seconds {:.0}: redone {:.0}, checkpoints {:.0}, starting {:.0}, failed but seated {:.0}, \
         between gangs {:.0}, kept from free seats {:.0}; waiting for machines {:.0}",
        seconds(ledger.lost()),
        seconds(redone),
        seconds(saved),
        seconds(starting),
        seconds(dead),
        seconds(turning),
        seconds(withheld),
        seconds(short)
    ));
    say(format_args!(
        "  floor GPU-seconds {:.0}: checkpoints {:.0}, failures {:.0}; repairs of lost nodes {:.0}",
        (saving + failing) / 1_000.0,
        saving / 1_000.0,
        failing / 1_000.0,
        repairing / 1_000.0
    ));
    let (lost, waits, floor) = (ledger.lost() as f64, short as f64, saving + failing);
    let useful = useful as f64;
    say(format_args!(
        "  goodput {:.2} %, with the waits for machines {:.2} %",
        100.0 * useful / (useful + lost),
        100.0 * useful / (useful + lost + waits)
    ));
    mark(&format!("failure_cost_{name}"), lost / floor, "of the floor", 1.2);
    let ratio = (lost + waits) / (floor + repairing);
    mark(&format!("failure_cost_with_repairs_{name}"), ratio, "of the floor with repairs", 1.2);
    say(format_args!("  with waits, of the floor without repairs: {:.3}", (lost + waits) / floor));
    let each = all.iter().map(|it| it.ledger.lost() as f64 / (it.saving + it.failing));
    let each: Vec<String> = each.map(|ratio| format!("{ratio:.3}")).collect();
    say(format_args!("  by seed: {}", each.join(" ")));
}
