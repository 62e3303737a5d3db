//! How long queues of experts take, against max(total / GPUs, longest).
//!
//! Nothing fails here; starts, checkpoints, listings and evaluations are charged to the scheduler. A trace
//! counts if its total over all GPUs is at least 0.8 of its longest expert: else the longest decides alone.

use clade_core::order::Random;

use super::costs::Costs;
use super::dump::Dump;
use super::fleet::{Fleet, SLOTS};
use super::for_each;
use super::mark::{mark, say};
use super::setup::RunPlan;

const HOUR_MS: f64 = 3_600_000.0;
const LIMIT_MS: u64 = 60 * 86_400_000;
/// A checkpoint every half hour.
pub(crate) const INTERVAL_MS: u64 = 1_800_000;

/// A queue of experts, and machines for it.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) nodes: usize,
    pub(crate) plans: Vec<RunPlan>,
}

/// What is hard about a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Four of its widest gangs fit at least.
    Usual,
    /// And its runs differ in their pace, which their seeds have shown to a fifth.
    Paced,
    /// The same, and nobody knows the pace before an expert steps: no run of the product is like that.
    Unpaced,
    /// One to three of its widest gangs fit: often no plan whatever reaches the bound.
    Tight,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Paced => "paced",
            Self::Unpaced => "unpaced",
            Self::Tight => "tight",
        }
    }

    const fn about(self) -> &'static str {
        match self {
            Self::Usual => "at least 4 of the widest gangs fit, every step takes a second",
            Self::Paced => "the same with steps of 0.2 to 3 s by run, shown by its seed to a fifth",
            Self::Unpaced => "the same, the pace unknown until an expert steps",
            Self::Tight => "1 to 3 of the widest gangs fit, every step takes a second",
        }
    }
}

/// What a trace came to.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    seed: u64,
    shape: String,
    ratio: f64,
    took: u64,
}

impl Trace {
    /// Draws a trace: one to three runs, each of one width; lengths alike, spread or skewed; in half of them
    /// some have begun. The widest gang divides the fleet, since no plan could help it if not.
    pub(crate) fn draw(seed: u64, kind: Kind) -> Self {
        let mut random = Random::new(seed ^ 0x7ace);
        // Apart, so that a paced trace and an unpaced one are the same otherwise.
        let mut noise = Random::new(seed ^ 0x5eed);
        let runs = 1 + random.below(3);
        let widths: Vec<u64> = (0..runs).map(|_| 8 << random.below(5)).collect();
        let widest = widths.iter().copied().max().unwrap_or(8);
        let least = if kind == Kind::Tight { 1 } else { 4 }.max(64_u64.div_ceil(widest));
        let most = if kind == Kind::Tight { 3.max(least) } else { 1_024 / widest };
        let gpus = widest * (least + random.below(most - least + 1));
        let experts = 16 + random.below(49);
        let skew = [0.0, 0.3, 0.6, 1.0][usize::try_from(random.below(4)).expect("of four")];
        let (has_begun, spread) = (random.below(2) == 0, random.below(2) == 0);
        let mut lengths: Vec<Vec<(f64, f64)>> = vec![Vec::new(); widths.len()];
        for at in 0..experts {
            let rank = f64::from(u32::try_from(at + 1).expect("few experts"));
            let noise = if spread { 0.5 + random.unit() } else { 1.0 };
            let begun = if has_begun { 0.8 * random.unit() } else { 0.0 };
            let run = usize::try_from(at % runs).expect("few runs");
            lengths[run].push((rank.powf(-skew) * noise, begun));
        }
        let gpus_wide = f64::from(u32::try_from(gpus).expect("a thousand"));
        let wide = |run: usize| f64::from(u32::try_from(widths[run]).expect("few"));
        let left = |&(length, begun): &(f64, f64)| length * (1.0 - begun);
        let totals = lengths
            .iter()
            .enumerate()
            .map(|(run, all)| all.iter().map(|it| left(it) * wide(run)).sum::<f64>());
        let total: f64 = totals.sum();
        let longest = lengths.iter().flatten().map(left).fold(0.0, f64::max);
        let bound = (total / gpus_wide).max(longest);
        // The bound is at six hours to two days.
        let scale = (6.0 + 42.0 * random.unit()) * HOUR_MS / bound;
        let plans = lengths.into_iter().zip(&widths).enumerate().map(|(run, (all, width))| {
            // A second is what the core takes a step to last in a run that it has not seen step.
            let is_paced = matches!(kind, Kind::Paced | Kind::Unpaced);
            let step_ms = if is_paced { 200 + random.below(2_800) } else { 1_000 };
            let steps = |share: f64| {
                let per_step = f64::from(u32::try_from(step_ms).expect("seconds"));
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "steps"
                )]
                let steps = (share * scale / per_step) as u64;
                steps
            };
            RunPlan {
                name: format!("run-{run}"),
                ranks: u32::try_from(*width).expect("few"),
                least: u32::try_from(*width).expect("few"),
                step_ms,
                shown_ms: (kind == Kind::Paced).then(|| step_ms * (80 + noise.below(41)) / 100),
                steps: all.iter().map(|(length, _)| steps(*length).max(1)).collect(),
                begun: all.iter().map(|(length, begun)| steps(length * begun)).collect(),
            }
        });
        let plans = plans.filter(|plan| !plan.steps.is_empty()).collect();
        let nodes = usize::try_from(gpus / u64::from(SLOTS)).expect("few nodes");
        Self { nodes, plans }
    }

    /// Total over GPUs, and the longest expert, in milliseconds.
    pub(crate) fn bounds(&self) -> (f64, f64) {
        let (mut total, mut longest) = (0, 0);
        for plan in &self.plans {
            for (steps, begun) in plan.steps.iter().zip(&plan.begun) {
                let length = (steps - begun) * plan.step_ms;
                total += length * u64::from(plan.ranks);
                longest = longest.max(length);
            }
        }
        let gpus = f64::from(u32::try_from(self.nodes).expect("few nodes") * SLOTS);
        (total as f64 / gpus, longest as f64)
    }

    /// The same with gangs that may have a quarter of their ranks.
    fn elastic(mut self) -> Self {
        for plan in &mut self.plans {
            plan.least = plan.ranks.div_ceil(4);
        }
        self
    }

    /// Plays it; returns how long it took.
    pub(crate) fn play(&self, costs: Costs) -> u64 {
        let mut fleet = Fleet::new(&self.plans, self.nodes, costs, INTERVAL_MS);
        let end = fleet.play(LIMIT_MS).expect("two days of work are done in sixty");
        assert_eq!(fleet.refusals, 0, "the scheduler refused what the fleet told it");
        end
    }

    fn shape(&self) -> String {
        let plans = self.plans.iter().map(|it| format!("{} of {}", it.steps.len(), it.ranks));
        let plans: Vec<String> = plans.collect();
        let (area, longest) = self.bounds();
        format!(
            "{} GPUs; {}; total/GPUs {:.2} of the longest",
            self.nodes * usize::try_from(SLOTS).unwrap_or(0),
            plans.join(", "),
            area / longest
        )
    }
}

/// Plays so many traces of each kind that count, and prints how far they are from their bounds.
pub(crate) fn run(seed: u64, traces: u64, costs: Costs, dump: &mut Dump) -> std::io::Result<()> {
    say(format_args!(
        "makespan: 16 to 64 experts in one to three runs, widths 8 to 128, 64 to 1,024 GPUs, a bound of 6 to 48 \
         hours, a checkpoint every {} s",
        INTERVAL_MS / 1_000
    ));
    for kind in [Kind::Usual, Kind::Paced, Kind::Unpaced, Kind::Tight] {
        measure((kind, false), seed, traces, costs, dump)?;
    }
    Ok(())
}

/// The same of gangs that may have a quarter of their ranks, against the same bounds.
pub(crate) fn run_elastic(
    seed: u64,
    traces: u64,
    costs: Costs,
    dump: &mut Dump,
) -> std::io::Result<()> {
    say(format_args!("the same traces, `minRanks` a quarter of `ranks`:"));
    for kind in [Kind::Usual, Kind::Paced, Kind::Tight] {
        measure((kind, true), seed, traces, costs, dump)?;
    }
    Ok(())
}

fn measure(
    (kind, is_elastic): (Kind, bool),
    seed: u64,
    traces: u64,
    costs: Costs,
    dump: &mut Dump,
) -> std::io::Result<()> {
    let counts = |seed: &u64| {
        let (area, longest) = Trace::draw(*seed, kind).bounds();
        area >= 0.8 * longest
    };
    let seeds = (seed..).filter(counts).take(usize::try_from(traces).unwrap_or(usize::MAX));
    let seeds: Vec<u64> = seeds.collect();
    let mut spans = for_each(0..traces, |at| {
        let seed = seeds[usize::try_from(at).expect("few traces")];
        let trace = Trace::draw(seed, kind);
        let trace = if is_elastic { trace.elastic() } else { trace };
        let (area, longest) = trace.bounds();
        let took = trace.play(costs);
        Span { seed, shape: trace.shape(), ratio: took as f64 / area.max(longest), took }
    });
    // The bound of rigid gangs is none of these.
    for it in spans.iter().filter(|_| !is_elastic) {
        dump.add((kind.name(), it.seed), &Trace::draw(it.seed, kind), it.took, costs)?;
    }
    spans.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let at = |part: usize| spans.get((spans.len() * part / 100).min(spans.len().saturating_sub(1)));
    let at = |part: usize| at(part).map_or(0.0, |it| it.ratio);
    let above = spans.iter().filter(|it| it.ratio > 1.1).count();
    let name = format!("{}{}", if is_elastic { "elastic_" } else { "" }, kind.name());
    say(format_args!(
        "  {name}: {}; {traces} traces, seeds {seed} to {}; 90 of 100 below {:.3}, {above} above 1.1",
        kind.about(),
        seeds.last().copied().unwrap_or(seed),
        at(90)
    ));
    for it in spans.iter().rev().take_while(|it| it.ratio > 1.1) {
        say(format_args!("    seed {}: {:.3}: {}", it.seed, it.ratio, it.shape));
    }
    mark(&format!("makespan_{name}_median"), at(50), "of the bound", 1.1);
    mark(&format!("makespan_{name}_worst"), at(100), "of the bound", 1.1);
    Ok(())
}
