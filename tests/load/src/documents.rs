//! Run documents for fleets that train nothing: the demo's, with other numbers.

use clade_core::spec::RunSpec;

const DEMO: &str = include_str!("../../../deploy/demo/run.yaml");

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) experts: u32,
    pub(crate) ranks: u32,
}

/// A document of such a run.
pub(crate) fn document(name: &str, shape: Shape) -> String {
    let Shape { experts, ranks } = shape;
    DEMO.replace("name: clipart", &format!("name: {name}"))
        .replace("fine: 64", &format!("fine: {}", experts.max(64)))
        .replace("experts: 4", &format!("experts: {experts}"))
        .replace("globalBatch: 128", "globalBatch: 8192")
        .replace("expertSteps: 144", "expertSteps: 100000")
        .replace("seed: {ranks: 2}", &format!("seed: {{ranks: {ranks}}}"))
        .replace("expert: {ranks: 1,", &format!("expert: {{ranks: {ranks},"))
}

/// The same, read.
pub(crate) fn spec(name: &str, shape: Shape) -> anyhow::Result<RunSpec> {
    let document = document(name, shape);
    RunSpec::parse(&document).map_err(|error| anyhow::anyhow!("{error}"))
}
