//! `clade-worker devices`: what this machine can compute on.

use clade_model::device;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    device: String,
    name: Option<String>,
    memory_bytes: Option<u64>,
    free_bytes: Option<u64>,
    /// Of the CPU's line: why there are no others.
    why_no_gpu: Option<String>,
}

/// Prints one JSON line per device.
pub fn run() -> anyhow::Result<()> {
    let mut why = device::why_no_gpu().map(|error| error.to_string());
    for found in device::list() {
        super::say(&Line {
            device: found.device,
            name: found.name,
            memory_bytes: found.memory,
            free_bytes: found.free,
            why_no_gpu: why.take(),
        })?;
    }
    Ok(())
}
