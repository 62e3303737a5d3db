//! What models left in the store: the records of their steps along the committed history.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// (loss, digest of the batch's keys) of each step of `model`, from the newest gang that recorded it.
///
/// A step that was taken twice because a crash undid it appears with its later record only.
pub fn steps(store: &Path, run: &str, model: &str) -> anyhow::Result<BTreeMap<u64, (f64, String)>> {
    let folder = store.join(format!("runs/{run}/models/{model}"));
    let mut gangs: Vec<(u64, std::path::PathBuf)> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix("gang-")?.parse().ok()?, entry.path()))
        })
        .collect();
    gangs.sort();
    let mut found = BTreeMap::new();
    for (_, gang) in gangs {
        let mut files: Vec<_> = std::fs::read_dir(&gang)?.filter_map(Result::ok).collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            if file.path().extension().is_none_or(|it| it != "jsonl") {
                continue;
            }
            for line in std::fs::read_to_string(file.path())?.lines() {
                let line: Value = serde_json::from_str(line)?;
                let Some(step) = line["step"].as_u64() else { continue };
                let loss = line["loss"].as_f64().context("a step has a loss")?;
                let keys = line["keys"].as_str().context("a step has keys")?.to_owned();
                found.insert(step, (loss, keys));
            }
        }
    }
    Ok(found)
}
