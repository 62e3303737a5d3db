//! What must be so after everything, told from what was left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::cluster::Cluster;
use crate::records;

/// The artefacts of a bucket, as far as they tell the history of models, copied below `copy`.
fn copy_history(cluster: &Cluster, run: &str, copy: &Path) -> anyhow::Result<()> {
    for key in cluster.bucket.list(&format!("artefacts/runs/{run}/models/"))? {
        if key.contains("/metrics-") || key.ends_with("manifest.json") {
            let file = copy.join(key.strip_prefix("artefacts/").context("a key of the store")?);
            std::fs::create_dir_all(file.parent().context("a folder")?)?;
            std::fs::write(file, cluster.bucket.get(&key)?)?;
        }
    }
    Ok(())
}

/// Every step of every model once, with the batch and the loss of the undisturbed run, bit for bit (G4), and
/// nothing in it from a gang that was superseded (G2).
pub fn same_history(
    cluster: &Cluster,
    run: &str,
    undisturbed: &Path,
    models: &[(&str, u32)],
) -> anyhow::Result<()> {
    let copy = cluster.folder.join("history");
    copy_history(cluster, run, &copy)?;
    for (model, steps) in models {
        let want = records::steps(undisturbed, run, model)?;
        let have = records::steps(&copy, run, model)?;
        ensure!(want.len() == *steps as usize, "{model}: {} undisturbed steps", want.len());
        let missing: BTreeSet<&u64> = want.keys().filter(|it| !have.contains_key(it)).collect();
        ensure!(missing.is_empty(), "{model}: steps {missing:?} were never recorded");
        for (step, record) in &have {
            let expected = want.get(step);
            ensure!(expected == Some(record), "{model}, step {step}: {record:?}, not {expected:?}");
        }
        let loss = have.last_key_value().map(|(_, (loss, _))| *loss);
        let gangs = descent(&copy, run, model)?;
        eprintln!(
            "{model}: {steps} steps by {gangs} gangs that committed, final loss {loss:?}: as undisturbed"
        );
    }
    Ok(())
}

/// Each gang went on exactly where an older one had committed. Returns how many left checkpoints.
fn descent(store: &Path, run: &str, model: &str) -> anyhow::Result<usize> {
    let folder = store.join(format!("runs/{run}/models/{model}"));
    let mut first_steps: BTreeMap<u64, u64> = BTreeMap::new();
    let mut manifests: Vec<Value> = Vec::new();
    for gang in std::fs::read_dir(&folder)?.filter_map(Result::ok) {
        let name = gang.file_name().to_string_lossy().into_owned();
        let number: u64 = name.strip_prefix("gang-").context("a gang's folder")?.parse()?;
        for entry in std::fs::read_dir(gang.path())?.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(step) = name.strip_prefix("metrics-") {
                let step: u64 = step.trim_end_matches(".jsonl").parse()?;
                let first = first_steps.entry(number).or_insert(step);
                *first = step.min(*first);
            }
            let manifest = entry.path().join("manifest.json");
            if manifest.exists() {
                manifests.push(serde_json::from_slice(&std::fs::read(manifest)?)?);
            }
        }
    }
    for manifest in &manifests {
        let gang = manifest["incarnation"].as_u64().context("an incarnation")?;
        let parent = &manifest["parent"];
        if parent["model"] != *model {
            continue;
        }
        let before = parent["incarnation"].as_u64();
        ensure!(before < Some(gang), "{model}: gang {gang} descends from {parent}");
        let first = first_steps.get(&gang).copied();
        let went_on = parent["step"].as_u64().map(|step| step + 1);
        ensure!(
            first == went_on,
            "{model}: gang {gang} began with step {first:?}, not after {parent}"
        );
    }
    Ok(first_steps.len())
}

/// No program may panic or break an invariant, whatever happens to it.
pub fn no_panic(cluster: &Cluster) -> anyhow::Result<()> {
    for service in cluster.workers.iter().chain(&cluster.coordinators) {
        let said = service.said();
        // Counters die with their process; what was logged stays.
        let is_bad = |line: &&str| line.contains("panicked") || line.contains("invariant broken");
        let line = said.lines().find(is_bad);
        ensure!(line.is_none(), "{}: {line:?}", service.name());
    }
    Ok(())
}

/// Whatever waits says what for (G8).
pub fn reasons(status: &Value) -> anyhow::Result<()> {
    for part in super::cluster::parts(status) {
        let waits = part["phase"] == "waiting";
        let reason = part["reason"].as_str().unwrap_or_default();
        ensure!(!waits || !reason.is_empty(), "G8: it waits for no reason: {part}");
    }
    Ok(())
}
