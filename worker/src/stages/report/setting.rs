//! What routing needs to know of a run.

use clade_core::routing::{Router, RoutingError, Rows, Settings};
use clade_core::spec::{RoutingRule, RunSpec};

use crate::stages::evaluate::arrays::Matrix;

/// The router, its settings and the rules asked for.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) router: Router<'a>,
    pub(crate) routing: Settings,
    /// Each once, in the run document's order.
    pub(crate) rules: Vec<RoutingRule>,
}

impl<'a> Setting<'a> {
    pub(crate) fn new(
        spec: &RunSpec,
        centres: Rows<'a>,
        expert_of: &'a [u32],
    ) -> Result<Self, RoutingError> {
        let routing = &spec.spec.evaluation.routing;
        let mut rules = Vec::new();
        for rule in &routing.rules {
            if !rules.contains(rule) {
                rules.push(*rule);
            }
        }
        Ok(Self {
            router: Router::new(centres, expert_of, spec.spec.clusters.experts)?,
            routing: Settings { lambda: routing.lambda, ..Settings::default() },
            rules,
        })
    }
}

/// A matrix of unit rows, as routing takes it.
pub(crate) fn rows(matrix: &Matrix) -> Result<Rows<'_>, RoutingError> {
    Rows::new(&matrix.values, matrix.width)
}
