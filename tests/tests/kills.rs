//! A gang whose ranks are killed at named points of a checkpoint goes on from the newest whole one, and makes
//! the losses of an undisturbed run bit for bit (G4).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clade_tests::bucket::Bucket;
use clade_tests::system::{System, kill_now};
use clade_tests::tripwire::{Moment, Tripwire};
use clade_tests::{records, toy};

const GANGS: &str = "{seed: {ranks: 2, restarts: 9, backoff: {from: 100ms, to: 100ms}, grace: 10s}, expert: {ranks: 1}}";
const STEPS: u32 = 240;
const PATIENCE: Duration = Duration::from_secs(60);

fn document(folder: &Path) -> String {
    toy::document("toy", folder, (STEPS, 1), GANGS)
        .replace("baselines: [dense]", "baselines: []")
        .replace("every: 500ms", "every: 400ms")
}

/// Kills every rank of the seed and waits for the next gang.
fn kill_seed(system: &System) -> anyhow::Result<()> {
    let before = system.part("seed")?["incarnation"].as_u64();
    let ranks = system.ranks("seed")?;
    ensure!(ranks.len() == 2, "the seed has ranks {ranks:?}");
    for rank in ranks {
        kill_now(rank)?;
    }
    let is_next = |part: &serde_json::Value| {
        part["incarnation"].as_u64() > before
            && (part["phase"] == "running" || part["phase"] == "done")
    };
    system.wait_part("seed", "to restart", is_next)?;
    Ok(())
}

/// The newest step that may be committed when this request was not done: less than a checkpoint's own.
fn after_commits(line: &str) -> anyhow::Result<Option<u64>> {
    if line.contains("/metrics-") {
        let first = line.split_once("/metrics-").context("a file of metrics")?.1;
        let first: u64 = first.split('.').next().context("a step")?.parse()?;
        return Ok(Some(first - 1));
    }
    Ok(Some(step_of(line)? - 1))
}

fn step_of(line: &str) -> anyhow::Result<u64> {
    let rest = line.split_once("/step-").context("a checkpoint's request")?.1;
    Ok(rest.split('/').next().context("a step")?.parse()?)
}

#[test]
fn ranks_killed_at_any_point_of_a_checkpoint_make_the_losses_of_an_undisturbed_run()
-> anyhow::Result<()> {
    if let Some(why) = toy::missing().or_else(Bucket::missing) {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let killed = toy::fresh(env!("CARGO_TARGET_TMPDIR"), "kills", 2, 120)?;
    let bucket = Bucket::start()?;
    let wire = Tripwire::start(bucket.address())?;
    let system = System::up_in(&killed, 2, &bucket.environment_at(&wire.address.to_string()))?;
    let store = format!("store: file:{}/store", killed.display());
    system.apply(&document(&killed).replace(&store, "store: s3://clade/artefacts"))?;

    let seed = "models/seed/";
    // What is named; when; and whether the checkpoint counts.
    let points = [
        ("optimizer.safetensors", Moment::Midway, false),
        ("metrics-", Moment::Before, false),
        ("manifest.json", Moment::Before, false),
        ("manifest.json", Moment::After, true),
    ];
    for (name, moment, counts) in points {
        system.wait_part("seed", "to train", |part| {
            assert!(part["phase"] != "done", "the seed was done too early for {name}");
            part["phase"] == "running" && part["done"].as_u64() > part["committedStep"].as_u64()
        })?;
        let before = system.part("seed")?["committedStep"].as_u64();
        wire.arm(&["PUT ", seed, name], moment);
        let line = wire.wait(PATIENCE)?;
        let incarnation = system.part("seed")?["incarnation"].as_u64().context("a gang")?;
        eprintln!("killing gang {incarnation}: {moment:?} {line}");
        kill_seed(&system)?;
        // What the gang left was looked at before the next one was seated.
        let after = system.part("seed")?["committedStep"].as_u64();
        if counts {
            ensure!(
                after == Some(step_of(&line)?),
                "its manifest was there, and {after:?} is committed"
            );
        } else {
            ensure!(after <= before.max(after_commits(&line)?), "{name}: {after:?} is committed");
        }
    }
    // At no point in particular: when a step is told that is not saved.
    system.wait_part("seed", "to train", |part| {
        part["phase"] == "running" && part["done"].as_u64() > part["committedStep"].as_u64()
    })?;
    kill_seed(&system)?;
    system.wait_part("seed", "to be done", |part| part["phase"] == "done")?;
    let copy = killed.join("copy");
    for key in bucket.list("artefacts/runs/toy/models/seed/")? {
        if key.contains("/metrics-") {
            let file = copy.join(key.strip_prefix("artefacts/").context("a key of the store")?);
            std::fs::create_dir_all(file.parent().context("a folder")?)?;
            std::fs::write(file, bucket.get(&key)?)?;
        }
    }
    system.cancel("toy")?;
    system.stop()?;

    let quiet = toy::fresh(env!("CARGO_TARGET_TMPDIR"), "unkilled", 2, 120)?;
    let system = System::up(&quiet, 2)?;
    system.apply(&document(&quiet))?;
    system.wait_part("seed", "to be done", |part| part["phase"] == "done")?;
    system.cancel("toy")?;
    system.stop()?;
    let quiet = records::steps(&quiet.join("store"), "toy", "seed")?;
    let killed = records::steps(&copy, "toy", "seed")?;
    ensure!(quiet.len() == STEPS as usize, "{} steps", quiet.len());
    for (step, undisturbed) in &quiet {
        let found = killed.get(step);
        ensure!(
            found == Some(undisturbed),
            "step {step}: {undisturbed:?}, and {found:?} if killed"
        );
    }
    ensure!(killed.len() == quiet.len(), "{} steps if killed", killed.len());
    Ok(())
}
