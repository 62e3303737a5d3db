//! Where each model's loss curve ended, from the metrics its ranks wrote.

use std::collections::BTreeMap;

use clade_core::ids::{CheckpointRef, RunName};
use clade_core::job::Failure;
use clade_store::keys;
use serde::Deserialize;

use crate::context::{Context, Ending};

/// Steps whose losses are averaged: one step alone is noise.
const LAST_STEPS: usize = 10;

/// The fields of a metrics line that are read here.
#[derive(Deserialize)]
struct Line {
    step: u64,
    loss: f64,
}

/// The mean loss over the last recorded steps up to a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CurveEnd {
    pub(crate) loss: Option<f64>,
    pub(crate) steps: u64,
}

/// Reads the end of a model's curve; a later gang's record of a step stands for earlier ones'.
pub(crate) fn end(context: &Context, at: &CheckpointRef) -> Result<CurveEnd, Ending> {
    let folder = models_folder(&context.job.run, at);
    let entries = context.block_on(context.store.list(&folder)).map_err(Failure::from)?;
    let mut files: Vec<(u64, u64, String)> = entries
        .into_iter()
        .filter_map(|entry| {
            let rest = entry.key.strip_prefix(&folder)?.strip_prefix("/gang-")?;
            let (gang, file) = rest.split_once('/')?;
            let first = file.strip_prefix("metrics-")?.strip_suffix(".jsonl")?;
            Some((gang.parse().ok()?, first.parse().ok()?, entry.key))
        })
        .filter(|(gang, ..)| *gang <= at.incarnation.0)
        .collect();
    files.sort();
    let mut losses = BTreeMap::new();
    for (_, _, key) in files {
        let bytes = context.block_on(context.store.get(&key)).map_err(Failure::from)?;
        read(&String::from_utf8_lossy(&bytes), at.step.0, &mut losses);
    }
    Ok(summarise(&losses))
}

/// A line cut short by a crash says nothing.
fn read(text: &str, last: u64, losses: &mut BTreeMap<u64, f64>) {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    losses.extend(lines.filter(|line| line.step <= last).map(|line| (line.step, line.loss)));
}

#[expect(clippy::cast_precision_loss, reason = "at most ten steps")]
fn summarise(losses: &BTreeMap<u64, f64>) -> CurveEnd {
    let last: Vec<f64> = losses.values().rev().take(LAST_STEPS).copied().collect();
    let loss = (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64);
    CurveEnd { loss, steps: last.len() as u64 }
}

/// Folder of all gangs of a checkpoint's model.
fn models_folder(run: &RunName, at: &CheckpointRef) -> String {
    let gang = keys::gang(run, at.model, at.incarnation);
    gang.rsplit_once('/').map_or(gang.clone(), |(folder, _)| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_curve_is_its_last_ten_steps_and_later_gangs_win() {
        let mut losses = BTreeMap::new();
        let first: String =
            (1..=20).map(|step| format!("{{\"step\":{step},\"loss\":9.0,\"lr\":0.1}}\n")).collect();
        read(&(first + "{\"step\":21,\"lo"), 20, &mut losses);
        let second: String =
            (11..=22).map(|step| format!("{{\"step\":{step},\"loss\":2.0}}\n")).collect();
        read(&second, 20, &mut losses);
        assert_eq!(summarise(&losses), CurveEnd { loss: Some(2.0), steps: 10 });
        assert_eq!(summarise(&BTreeMap::new()), CurveEnd { loss: None, steps: 0 });
    }
}
