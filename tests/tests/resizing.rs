//! A gang of real processes that loses half of its seats, gets one back, makes way for a more urgent run, and makes
//! the losses of one that lost nothing (G7).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clade_tests::system::{System, wait_for};
use clade_tests::{records, toy};

/// Twelve micro-batches: four, three and two ranks can share them.
const GANGS: &str = "{seed: {ranks: 4, minRanks: 2, grace: 20s}, expert: {ranks: 1}}";
const STEPS: u32 = 200;
/// Of any loss, as G7 has it.
const TOLERANCE: f64 = 1e-4;

fn document(name: &str, folder: &Path, gangs: &str) -> String {
    toy::document(name, folder, (STEPS, 1), gangs)
        .replace("globalBatch: 32", "globalBatch: 192")
        .replace("every: 500ms, keep: 3", "every: 1s, keep: 99")
        .replace("baselines: [dense]", "baselines: []")
}

/// Waits until the seed's gang trains with so many ranks and has saved something, and returns its step.
fn wait_width(system: &System, ranks: usize) -> anyhow::Result<u64> {
    let part =
        system.wait_part("seed", &format!("to train on {ranks} ranks and save"), |part| {
            let width = part["ranks"].as_array().map_or(0, Vec::len);
            ensure_undone(part);
            let committed = part["committedStep"].as_u64().unwrap_or(0);
            let done = part["done"].as_u64().unwrap_or(0);
            part["phase"] == "running" && width == ranks && done > committed && committed > 0
        })?;
    part["done"].as_u64().context("a model counts its steps")
}

fn ensure_undone(part: &serde_json::Value) {
    assert!(part["phase"] != "done", "the seed was done before it could be resized");
}

#[test]
fn a_gang_that_loses_seats_gets_them_back_and_makes_way_makes_the_losses_of_one_rank()
-> anyhow::Result<()> {
    if let Some(why) = toy::missing() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let resized = toy::fresh(env!("CARGO_TARGET_TMPDIR"), "resized", 2, 300)?;
    let system = System::up(&resized, 1)?;
    let kept = system.hire("x1")?;
    let lost = [system.hire("x2")?, system.hire("x3")?];
    system.wait_attached(4)?;
    system.apply(&document("toy", &resized, GANGS))?;
    wait_width(&system, 4)?;
    drop(lost);
    wait_width(&system, 2)?;
    let told = system.part("seed")?["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(told.contains("2 of 4 ranks"), "status does not say that it is narrow: {told}");
    // A seat comes back: at its next checkpoint the gang takes it.
    let back = system.hire("x4")?;
    wait_width(&system, 3)?;
    // A more urgent run wants a seat, at first for its jobs: the gang saves, leaves, and goes on with two.
    let urgent = document("urgent", &resized, "{seed: {ranks: 1}, expert: {ranks: 1}}");
    let urgent = urgent.replace("  seed: 7\n", "  seed: 7\n  priority: 10\n");
    // So long that it is not waited for.
    system.apply(&urgent.replace(&format!("seedSteps: {STEPS}"), "seedSteps: 100000"))?;
    let at = wait_width(&system, 2)?;
    ensure!(at < u64::from(STEPS), "nothing was left to train on two ranks");
    system.cancel("urgent")?;
    system.wait_part("seed", "to be done", |part| part["phase"] == "done")?;
    let seed = system.part("seed")?;
    ensure!(seed["restarts"].as_u64() == Some(1), "one was lost, all others were asked: {seed}");
    let widths = widths(&resized)?;
    // Once the urgent run is gone it is widened again, if enough is left to be worth it.
    ensure!(widths.starts_with(&[4, 2, 3, 2]), "checkpoints were made by gangs of {widths:?}");
    system.cancel("toy")?;
    drop((kept, back));
    system.stop()?;

    let alone = toy::fresh(env!("CARGO_TARGET_TMPDIR"), "alone", 2, 300)?;
    let system = System::up(&alone, 1)?;
    system.apply(&document("toy", &alone, "{seed: {ranks: 1}, expert: {ranks: 1}}"))?;
    system.wait_part("seed", "to be done", |part| part["phase"] == "done")?;
    system.cancel("toy")?;
    system.stop()?;

    let of = |folder: &Path| records::steps(&folder.join("store"), "toy", "seed");
    let (alone, resized) = (of(&alone)?, of(&resized)?);
    ensure!(alone.len() == STEPS as usize && resized.len() == STEPS as usize);
    let mut worst = (0, 0.0_f64);
    for (step, (loss, keys)) in &alone {
        let (other, others) = &resized[step];
        ensure!(keys == others, "step {step} was made of other pairs");
        if (loss - other).abs() > worst.1 {
            worst = (*step, (loss - other).abs());
        }
    }
    let (first, last) = (alone[&1].0, alone[&u64::from(STEPS)].0);
    eprintln!("loss {first:.4} to {last:.4}; widest apart {:.2e} at step {}", worst.1, worst.0);
    ensure!(worst.1 <= TOLERANCE, "losses differ by {:.2e} at step {}", worst.1, worst.0);
    ensure!(last < 0.8 * first, "the loss fell from {first} to {last} only");
    Ok(())
}

/// The widths of the seed's gangs that wrote checkpoints, in order.
fn widths(folder: &Path) -> anyhow::Result<Vec<u64>> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    let gangs = folder.join("store/runs/toy/models/seed");
    wait_for("the store", Duration::from_secs(10), || Ok(gangs.exists().then_some(())))?;
    for gang in std::fs::read_dir(gangs)?.filter_map(Result::ok) {
        for step in std::fs::read_dir(gang.path())?.filter_map(Result::ok) {
            let Ok(text) = std::fs::read(step.path().join("manifest.json")) else { continue };
            let manifest: serde_json::Value = serde_json::from_slice(&text)?;
            let number = |name: &str| manifest[name].as_u64().with_context(|| format!("no {name}"));
            found.push((number("incarnation")?, number("worldSize")?));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found.into_iter().map(|(_, width)| width).collect())
}
