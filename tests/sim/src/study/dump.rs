//! Traces as they were played, one JSON object a line, for `tests/sim/study/bound.py`.
//!
//! It says how long each gang must be seated at least, since the costs are known here; what that means for a
//! whole trace is the reader's to compute.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde::Serialize;

use super::costs::Costs;
use super::fleet::SLOTS;
use super::makespan::{INTERVAL_MS, Trace};

/// A file of traces.
pub(crate) struct Dump(Option<BufWriter<File>>);

#[derive(Serialize)]
struct Line<'a> {
    kind: &'a str,
    seed: u64,
    gpus: u64,
    /// max(total / GPUs, longest).
    simple_ms: f64,
    took_ms: u64,
    gangs: Vec<Gang>,
}

#[derive(Serialize)]
struct Gang {
    width: u32,
    /// Its steps alone.
    steps_ms: u64,
    /// With its start and its checkpoints, if it never makes way.
    least_ms: u64,
}

impl Dump {
    /// Of nothing, without a path.
    pub(crate) fn create(path: Option<&Path>) -> std::io::Result<Self> {
        Ok(Self(path.map(File::create).transpose()?.map(BufWriter::new)))
    }

    /// Adds a trace that took so long.
    pub(crate) fn add(
        &mut self,
        (kind, seed): (&str, u64),
        trace: &Trace,
        took_ms: u64,
        costs: Costs,
    ) -> std::io::Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let gangs = trace.plans.iter().flat_map(|plan| {
            plan.steps.iter().zip(&plan.begun).map(|(steps, begun)| {
                let (width, steps_ms) = (plan.ranks, (steps - begun) * plan.step_ms);
                let least_ms = costs.least_ms(steps_ms, plan.step_ms, INTERVAL_MS);
                Gang { width, steps_ms, least_ms }
            })
        });
        let gangs = gangs.collect();
        let gpus = u64::try_from(trace.nodes).unwrap_or(u64::MAX) * u64::from(SLOTS);
        let (area, longest) = trace.bounds();
        let line = Line { kind, seed, gpus, simple_ms: area.max(longest), took_ms, gangs };
        serde_json::to_writer(&mut *file, &line)?;
        writeln!(file)?;
        // What was played stays if the rest is not waited for.
        file.flush()
    }
}
