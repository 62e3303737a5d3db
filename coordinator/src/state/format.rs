//! Formats of the rows, and how older ones become this program's.
//!
//! A change to how a row is written counts [`FORMAT`] up and adds a step to [`migrate`]. The
//! leader applies it in transactions of at most [`super::MOST_KEYS`] keys and writes the new
//! number last, so every step must be harmless to rows it has changed already.

use std::collections::BTreeMap;

use clade_core::ids::WorkId;
use clade_core::schedule::JOBS_PER_CHUNK;
use serde_json::Value;

use super::{Rows, Write};

/// The format this program writes. A place of a newer one is refused.
pub(crate) const FORMAT: u32 = 1;

/// What must be written so that rows of format `from` become rows of [`FORMAT`].
pub(crate) fn migrate(from: u32, rows: &Rows) -> Vec<Write> {
    let mut writes = Vec::new();
    if from < 1 {
        gather_jobs(rows, &mut writes);
    }
    writes
}

/// Format 0 had one row for each work, and the term among the rows: stores had no identity yet.
fn gather_jobs(rows: &Rows, writes: &mut Vec<Write>) {
    let mut chunks: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let mut old = Vec::new();
    for (key, value) in rows {
        if key == "term" {
            old.push(key.clone());
        }
        let Some((run, work)) = key.strip_prefix("work/").and_then(|key| key.split_once('/'))
        else {
            continue;
        };
        // What cannot be read is left: the leader then refuses it by its key.
        let (Ok(id), Ok(json)) = (work.parse::<WorkId>(), serde_json::from_slice(value)) else {
            continue;
        };
        old.push(key.clone());
        match id {
            WorkId::Model(model) => writes
                .push(Write::Put { key: format!("model/{run}/{model}"), value: value.clone() }),
            WorkId::Job(job) => {
                let chunk = format!("jobs/{run}/{}/{}", job.stage, job.part / JOBS_PER_CHUNK);
                // One that was begun before is gone on with.
                let begun = || {
                    let row = rows.get(&chunk)?;
                    serde_json::from_slice::<BTreeMap<String, Value>>(row).ok()
                };
                let jobs = match chunks.get_mut(&chunk) {
                    Some(jobs) => jobs,
                    None => {
                        let begun = begun().unwrap_or_default();
                        chunks.entry(chunk.clone()).or_insert(begun)
                    }
                };
                jobs.insert(work.to_owned(), json);
            }
        }
    }
    for (key, jobs) in chunks {
        let value = serde_json::to_vec(&jobs).expect("a map of JSON values is JSON");
        writes.push(Write::Put { key, value });
    }
    // Last: whatever interrupts this, each work has a row that counts.
    writes.extend(old.into_iter().map(|key| Write::Delete { key }));
}
