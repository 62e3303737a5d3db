//! What a seed decides before anything happens: machines, runs, time limits.

use clade_core::ids::{Millis, NodeName};
use clade_core::order::Random;
use clade_core::schedule::{Limits, Offer};
use clade_core::spec::RunSpec;

use crate::machine::Machine;

/// What a world is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything goes wrong.
    Chaos,
    /// Streams break for less than the patience, leaders change and stand still, messages are late:
    /// nothing may be restarted.
    Calm,
    /// More gangs than one transaction takes are cancelled and lost at once.
    Wide,
}

/// A world before anything happens.
#[derive(Clone, Debug)]
pub struct Setting {
    pub kind: Kind,
    pub limits: Limits,
    pub runs: Vec<RunSpec>,
    pub tars: u32,
    /// When the second run is applied.
    pub second_at: u64,
    pub faults: u64,
    /// How long faults go on.
    pub chaos: u64,
    /// Milliseconds per step.
    pub pace: u64,
}

const DEMO: &str = include_str!("../../../deploy/demo/run.yaml");

/// The time at which leaders' clocks begin.
pub(crate) const EPOCH: u64 = 1_700_000_000_000;

fn pick<T: Copy>(random: &mut Random, all: &[T]) -> T {
    let at = random.below(u64::try_from(all.len()).expect("a short list"));
    all[usize::try_from(at).expect("a short list")]
}

struct Shape {
    experts: u64,
    seed_ranks: u64,
    ranks: u64,
    /// Whether gangs may have fewer ranks than their most.
    is_elastic: bool,
    priority: i64,
    is_mixed: bool,
}

fn spec(random: &mut Random, kind: Kind, name: &str, shape: &Shape) -> RunSpec {
    let Shape { experts, seed_ranks, ranks, is_elastic, priority, is_mixed } = shape;
    let least = |ranks: &u64| match is_elastic {
        true => format!("minRanks: {}, ", 1.max(ranks / 4)),
        false => String::new(),
    };
    let (seed_least, least) = (least(seed_ranks), least(ranks));
    let seed_steps = 30 + random.below(40);
    let expert_steps = if random.below(3) == 0 {
        format!("{{proportional: {}}}", 128 * experts * (20 + random.below(20)))
    } else {
        (20 + random.below(30)).to_string()
    };
    let (restarts, fruitless) = match kind {
        Kind::Calm => (5, 9),
        Kind::Chaos | Kind::Wide => (1 + random.below(4), 2 + random.below(8)),
    };
    let keep = 1 + random.below(4);
    let dense = if random.below(2) == 0 { "[dense]" } else { "[]" };
    let needs = match (is_mixed, random.below(4)) {
        (true, 0) => ", requires: {gpu: H100}",
        (true, 1) => ", requires: {memoryGib: 30}",
        (true, 2) => ", requires: {labels: {zone: a}}",
        _ => "",
    };
    let jobs = if *is_mixed && random.below(3) == 0 {
        "jobs: {requires: {gpu: a100}}"
    } else {
        "jobs: {}"
    };
    let document = DEMO
        .replace("name: clipart", &format!("name: {name}"))
        .replace("experts: 4", &format!("experts: {experts}"))
        .replace("fine: 64", &format!("fine: {}", 64.max(*experts)))
        .replace("microBatch: 64", "microBatch: 32")
        .replace("seedSteps: 288", &format!("seedSteps: {seed_steps}"))
        .replace("expertSteps: 144", &format!("expertSteps: {expert_steps}"))
        .replace("warmup: 50", "warmup: 5")
        .replace("keep: 3", &format!("keep: {keep}"))
        .replace("[dense]", dense)
        .replace("  gangs:", &format!("  priority: {priority}\n  gangs:\n    {jobs}"))
        .replace(
            "seed: {ranks: 2}",
            &format!(
                "seed: {{ranks: {seed_ranks}, {seed_least}restarts: {restarts}, fruitless: {fruitless}, \
             backoff: {{from: 1s, to: 6s}}, grace: 3s{needs}}}"
            ),
        )
        .replace(
            "expert: {ranks: 1, restarts: 5, backoff: {from: 1s, to: 60s}, grace: 20s}",
            &format!(
                "expert: {{ranks: {ranks}, {least}restarts: {restarts}, fruitless: {fruitless}, \
             backoff: {{from: 1s, to: 6s}}, grace: 3s{needs}}}"
            ),
        );
    RunSpec::parse(&document).unwrap_or_else(|error| panic!("{error}: {document}"))
}

impl Setting {
    /// Draws a world, and its machines.
    pub(crate) fn draw(seed: u64) -> (Self, Vec<Machine>) {
        let mut random = Random::new(seed ^ 0x5e77_1266);
        let kind = match seed % 50 {
            7 => Kind::Wide,
            at if at % 10 == 3 => Kind::Calm,
            _ => Kind::Chaos,
        };
        let is_mixed = kind != Kind::Wide && random.below(3) == 0;
        let count = 8 + random.below(4);
        let slots = match kind {
            Kind::Wide => 24,
            Kind::Chaos | Kind::Calm => 1 + random.below(3),
        };
        let mut machines = Vec::new();
        for at in 0..count {
            // Half of them each, and enough of both for the widest gang.
            let is_large = !is_mixed || at % 2 == 0;
            let (name, memory_mib) =
                if is_large { ("NVIDIA H100 80GB", 81_559) } else { ("NVIDIA A100 40GB", 40_536) };
            let zone = if at % 4 < 2 { "a" } else { "b" };
            let offer = Offer {
                node: NodeName(format!("n{at}")),
                host: format!("n{at}"),
                domain: format!("rack-{}", at / 3),
                pid: 1,
                slots: u32::try_from(slots).expect("few slots"),
                kind: name.to_owned(),
                memory_mib,
                labels: [("zone".to_owned(), zone.to_owned())].into(),
                secret: String::new(),
            };
            machines.push(Machine { offer, slowness: 1, ..Machine::default() });
        }
        let widest = if is_mixed && slots == 1 { 2 } else { 4 };
        let widths: Vec<u64> = [1, 2, 4].into_iter().filter(|it| *it <= widest).collect();
        let shape = |random: &mut Random, priority| Shape {
            experts: match kind {
                Kind::Wide => 110,
                Kind::Chaos | Kind::Calm => 4 + random.below(4),
            },
            seed_ranks: pick(random, &widths),
            ranks: if kind == Kind::Wide { 1 } else { pick(random, &widths) },
            is_elastic: kind == Kind::Chaos && random.below(2) == 0,
            priority,
            is_mixed,
        };
        let first = shape(&mut random, 0);
        let mut runs = vec![spec(&mut random, kind, "clipart", &first)];
        if kind != Kind::Wide {
            // Calm worlds may not preempt: that restarts gangs.
            let priority = if kind == Kind::Calm { 0 } else { pick(&mut random, &[5, 5, 0, -3]) };
            let second = Shape { experts: 2, ..shape(&mut random, priority) };
            runs.push(spec(&mut random, kind, "urgent", &second));
        }
        let mut limits = Limits {
            first_step: Millis(20_000),
            hang: Millis(8_000),
            quarantine: Millis(10_000),
            narrow: Millis(2_000),
            ..Limits::default()
        };
        let tars =
            if kind == Kind::Wide { 2 } else { 2 + u32::try_from(random.below(4)).expect("few") };
        let second_at = 5_000 + random.below(40_000);
        let faults = 60 + random.below(60);
        let chaos = if kind == Kind::Wide { 60_000 } else { 90_000 };
        let pace = 40 + random.below(120);
        // Models here last seconds: none would ever be far enough ahead to make way.
        if kind == Kind::Chaos && random.below(3) == 0 {
            limits.way = Millis(500 << random.below(3));
        }
        let setting = Self { kind, limits, runs, tars, second_at, faults, chaos, pace };
        (setting, machines)
    }
}
