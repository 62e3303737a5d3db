//! The main job on real processes, twice: once undisturbed with `clade up -f`, once with
//! everything killed that can be. Both must end with the same models.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clade_tests::system::{System, kill_now, up_to_the_end, wait_for};
use clade_tests::{records, toy};

const GANGS: &str = "{seed: {ranks: 2}, expert: {ranks: 1, restarts: 5, backoff: {from: 200ms, to: 1s}, grace: 10s}}";
const STEPS: (u32, u32) = (60, 200);
const MODELS: [&str; 4] = ["seed", "dense", "expert-0", "expert-1"];

/// A folder for one system: kept when the test fails, so that its logs can be read.
#[test]
fn a_killed_run_ends_with_the_models_of_an_undisturbed_one() -> anyhow::Result<()> {
    if let Some(why) = toy::missing() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let quiet = undisturbed()?;
    let killed = disturbed()?;
    for model in MODELS {
        let of = |folder: &Path| records::steps(&folder.join("store"), "toy", model);
        let (quiet, killed) = (of(&quiet)?, of(&killed)?);
        let due = if model == "seed" { STEPS.0 } else { STEPS.0 + STEPS.1 };
        ensure!(quiet.len() == usize::try_from(if model == "seed" { STEPS.0 } else { STEPS.1 })?);
        ensure!(quiet.keys().next_back() == Some(&u64::from(due)), "{model} ends elsewhere");
        // Bit for bit: the same pairs in the same order gave the same losses (G4, G6).
        ensure!(quiet == killed, "{model}: the records differ\n{quiet:?}\n{killed:?}");
    }
    Ok(())
}

fn undisturbed() -> anyhow::Result<std::path::PathBuf> {
    let folder = toy::fresh(env!("CARGO_TARGET_TMPDIR"), "undisturbed", 3, 120)?;
    let document = toy::document("toy", &folder, STEPS, GANGS);
    let first = up_to_the_end(&folder, &document)?;
    let told = String::from_utf8_lossy(&first.stdout).into_owned();
    let errors = String::from_utf8_lossy(&first.stderr).into_owned();
    ensure!(first.status.success(), "up ended with {}: {told}\n{errors}", first.status);
    let run = folder.join("store/runs/toy");
    let report = std::fs::read_to_string(run.join("evaluate/report.md"))?;
    ensure!(
        told.contains(report.lines().next().context("an empty report")?),
        "no report in {told}"
    );
    let index = std::fs::read_to_string(run.join("catalog/0/manifest.json"))?;
    for cause in ["truncatedImage", "emptyCaption"] {
        ensure!(index.contains(cause), "{cause} is not counted in {index}");
    }
    let modified = std::fs::metadata(run.join("evaluate/report.md"))?.modified()?;
    let second = up_to_the_end(&folder, &document)?;
    ensure!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    ensure!(String::from_utf8_lossy(&second.stdout).contains(report.trim_end()), "no report again");
    let again = std::fs::metadata(run.join("evaluate/report.md"))?.modified()?;
    ensure!(modified == again, "the second time redid the report");
    Ok(folder)
}

fn disturbed() -> anyhow::Result<std::path::PathBuf> {
    let folder = toy::fresh(env!("CARGO_TARGET_TMPDIR"), "disturbed", 3, 120)?;
    let system = System::up(&folder, 2)?;
    system.apply(&toy::document("toy", &folder, STEPS, GANGS))?;
    let models = folder.join("store/runs/toy/models");

    // A worker, while jobs run on it.
    system.wait_part("index", "to be under way", |part| part["phase"] != "waiting")?;
    kill_now(system.process("w0")?)?;

    // A rank of the seed's gang in the middle of an upload: parts are there, the manifest is not.
    let mut seen = std::collections::BTreeSet::new();
    loop {
        system.wait_part("seed", "to run", |part| part["phase"] == "running")?;
        let ranks = system.ranks("seed")?;
        let uploading = wait_for("an upload", Duration::from_secs(120), || {
            let Ok(gangs) = std::fs::read_dir(models.join("seed")) else { return Ok(None) };
            for gang in gangs.filter_map(Result::ok) {
                for step in std::fs::read_dir(gang.path())?.filter_map(Result::ok) {
                    let is_step = step.file_name().to_string_lossy().starts_with("step-");
                    let has_manifest = step.path().join("manifest.json").exists();
                    if is_step && !has_manifest && !seen.contains(&step.path()) {
                        return Ok(Some(step.path()));
                    }
                }
            }
            Ok(None)
        })?;
        for rank in &ranks {
            kill_now(*rank).ok();
        }
        let was_caught = !uploading.join("manifest.json").exists();
        seen.insert(uploading);
        if was_caught {
            ensure!(ranks.len() == 2, "the seed's gang has ranks {ranks:?}");
            break;
        }
        ensure!(seen.len() < 4, "no kill hit an upload: {seen:?}");
    }
    eprintln!("killed the seed's ranks while {:?} was written", seen.last());
    let seed = system.wait_part("seed", "to restart", |part| {
        part["restarts"].as_u64() >= Some(1)
            && (part["phase"] == "running" || part["phase"] == "done")
    })?;
    let first = seed["incarnation"].as_u64().context("an incarnation")?;
    ensure!(first >= 2, "a new gang under an old fence: {seed}");
    let logs = system.logs("seed")?;
    ensure!(logs.contains("gang-1/"), "the dead rank's log is gone:\n{logs}");

    // The coordinator, while models train: no gang restarts (G5).
    let is_training = |part: &serde_json::Value| part["phase"] == "running";
    system.wait_part("expert-0", "to run", is_training)?;
    let before = system.part("expert-0")?;
    let pids = system.ranks("expert-0")?;
    kill_now(system.process("coordinator")?)?;
    let after = system.wait_part("expert-0", "to be seen again", |part| {
        part["phase"] == "running" || part["phase"] == "done"
    })?;
    ensure!(after["incarnation"] == before["incarnation"], "G5: {before} became {after}");
    ensure!(after["restarts"] == before["restarts"], "G5: {before} became {after}");
    if after["phase"] == "running" {
        ensure!(system.ranks("expert-0")? == pids, "G5: the rank was replaced");
    }

    // A worker with a rank on it: its gang moves, the other keeps its process (G6).
    let (lost, kept) = wait_for("two models at once", Duration::from_secs(120), || {
        let Ok(status) = system.status() else { return Ok(None) };
        let parts = status["runs"][0]["parts"].as_array().cloned().unwrap_or_default();
        let running: Vec<_> = parts
            .into_iter()
            .filter(|part| part["unit"] == "steps" && part["phase"] == "running")
            .filter(|part| part["done"].as_u64() < Some(u64::from(STEPS.1 / 2)))
            .collect();
        Ok(<[_; 2]>::try_from(running).ok().map(|[lost, kept]| (lost, kept)))
    })?;
    let name = |part: &serde_json::Value| part["name"].as_str().unwrap_or_default().to_owned();
    let worker = lost["ranks"][0]["worker"].as_str().context("a seated rank has a worker")?;
    let kept_pids = system.ranks(&name(&kept))?;
    kill_now(system.process(&worker[..2])?)?;
    eprintln!("killed worker {worker} of {}", name(&lost));
    let then = lost["incarnation"].as_u64();
    system.wait_part(&name(&lost), "to move", |part| part["incarnation"].as_u64() > then)?;
    let other = system.part(&name(&kept))?;
    ensure!(other["incarnation"] == kept["incarnation"], "G6: {kept} became {other}");
    ensure!(
        other["phase"] == "done" || system.ranks(&name(&kept))? == kept_pids,
        "G6: the other gang's process changed"
    );

    let phase = system.wait_end(Duration::from_secs(300))?;
    ensure!(phase == "finished", "the run ended {phase}: {}", system.status()?);
    system.stop()?;
    Ok(folder)
}
