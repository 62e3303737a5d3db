//! Seeded chaos, then faults stop and every run must finish: the scheduler against a world that
//! loses ranks, workers, streams and leaders.

use clade_core::ids::{Step, WorkId};
use clade_core::schedule::Phase;
use clade_core::spec::RunSpec;
use clade_tests::world::{Faults, World};

/// Worlds per test; `SIMULATIONS=10000` for a night.
fn worlds() -> u64 {
    std::env::var("SIMULATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

fn spec(expert_ranks: u32) -> RunSpec {
    let document = include_str!("../../deploy/demo/run.yaml")
        .replace("expert: {ranks: 1", &format!("expert: {{ranks: {expert_ranks}"))
        .replace("restarts: 5", "restarts: 1000")
        .replace("to: 60s", "to: 3s");
    RunSpec::parse(&document).expect("the demo's document is valid")
}

#[test]
fn after_any_chaos_every_model_reaches_its_due_step_from_its_own_checkpoints() {
    for seed in 0..worlds() {
        let (agents, slots, ranks) = [(2, 1, 1), (4, 1, 2), (2, 2, 2), (1, 4, 1)]
            [usize::try_from(seed % 4).expect("below 4")];
        let mut world = World::new(seed, spec(ranks), 5, agents, slots);
        for _ in 0..600 {
            world.tick(&Faults::CHAOS);
        }
        if let Err(why) = world.heal(600) {
            panic!("seed {seed}: {why}");
        }
        let run = world.state.runs.values().next().expect("one run");
        for (id, work) in &run.works {
            assert_eq!(work.phase, Phase::Done, "seed {seed}: {id}");
            if let WorkId::Model(model) = id {
                assert_eq!(work.committed_step(), run.due(*model), "seed {seed}: {id}");
            }
        }
        // An expert's first gang starts from the seed's last checkpoint and later ones never go
        // back behind what their model had committed.
        for (at, (fence, resume)) in world.starts.iter().enumerate() {
            let earlier = world.starts[..at].iter().filter(|(of, _)| of.work == fence.work);
            let newest = earlier.filter_map(|(_, from)| from.as_ref().map(|it| it.step)).max();
            let from = resume.as_ref().map_or(Step(0), |it| it.step);
            assert!(newest.is_none_or(|newest| newest <= from), "seed {seed}: {fence} went back");
        }
    }
}

#[test]
fn without_faults_nothing_is_restarted() {
    let mut world = World::new(1, spec(1), 5, 2, 1);
    world.heal(600).expect("a quiet world finishes");
    let run = world.state.runs.values().next().expect("one run");
    assert!(run.works.values().all(|work| work.restarts == 0));
    assert_eq!(world.starts.len(), 6);
}
