//! A tower as a chain of segments, and its gradient with or without keeping what is between them.
//!
//! Each segment has a graph of its own, so that its parameters' gradients are there as soon as the backward
//! pass has gone through it, and not all at once at the end. With recomputation only each segment's input
//! is kept; the backward pass runs every segment forward once more, from the last to the first, and takes
//! its gradient alone. The numbers are the same; memory falls from all activations to one block's, for a
//! third more work.

use tch::Tensor;

use crate::native::{self, NativeError};

/// Something computed segment by segment.
pub(crate) trait Chain {
    /// Number of segments.
    fn len(&self) -> usize;

    /// Runs one segment; the first takes the chain's input.
    fn run(&self, segment: usize, x: &Tensor) -> Tensor;

    /// The leaves that one segment uses, as indices of parameters.
    fn params(&self, segment: usize) -> &[usize];
}

/// Who is given what a backward pass finds.
pub(crate) trait Downhill<E> {
    /// One parameter's gradient; each is given once.
    fn take(&mut self, index: usize, gradient: Tensor);

    /// All gradients of a segment, and of those after it, were given.
    fn passed(&mut self, segment: usize) -> Result<(), E>;
}

/// What a forward pass is to keep for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Each segment's input and graph.
    Graphs,
    /// Each segment's input alone.
    Inputs,
}

/// What was kept of one segment.
#[derive(Debug)]
pub(crate) struct Kept {
    input: Tensor,
    /// With its graph down to `input`.
    output: Option<Tensor>,
}

/// Runs all segments.
pub(crate) fn forward(chain: &dyn Chain, input: &Tensor) -> Tensor {
    (0..chain.len()).fold(input.shallow_clone(), |x, segment| chain.run(segment, &x))
}

/// Runs all segments; returns what [`backward`] needs of each, and the output without a graph.
///
/// `of_input` tells whether the gradient of the chain's input will be asked for.
pub(crate) fn forward_keeping(
    chain: &dyn Chain,
    keep: Keep,
    input: &Tensor,
    of_input: bool,
) -> (Vec<Kept>, Tensor) {
    let mut all = Vec::with_capacity(chain.len());
    let mut x = input.detach();
    for segment in 0..chain.len() {
        let (kept, next) = match keep {
            Keep::Graphs => {
                let input = x.set_requires_grad(segment > 0 || of_input);
                let output = chain.run(segment, &input);
                let next = output.detach();
                (Kept { input, output: Some(output) }, next)
            }
            Keep::Inputs => {
                let _no_graph = tch::no_grad_guard();
                let next = chain.run(segment, &x);
                (Kept { input: x, output: None }, next)
            }
        };
        all.push(kept);
        x = next;
    }
    (all, x)
}

/// Takes the gradient of a chain of which `kept` was kept.
///
/// Returns the gradient of the chain's input, if `of_input`.
pub(crate) fn backward<E: From<NativeError>>(
    chain: &dyn Chain,
    mut kept: Vec<Kept>,
    by_output: Tensor,
    leaves: &[Tensor],
    of_input: bool,
    down: &mut dyn Downhill<E>,
) -> Result<Option<Tensor>, E> {
    let mut by_x = by_output;
    for segment in (0..chain.len()).rev() {
        let Kept { input, output } = kept.pop().expect("every segment was kept");
        let wants_input = segment > 0 || of_input;
        let (input, output) = match output {
            Some(output) => (input, output),
            None => {
                let input = input.detach().set_requires_grad(wants_input);
                let output = chain.run(segment, &input);
                (input, output)
            }
        };
        let params = chain.params(segment);
        let mut wanted: Vec<&Tensor> = params.iter().map(|&index| &leaves[index]).collect();
        if wants_input {
            wanted.push(&input);
        }
        let mut found = native::grad(&[&output], &[&by_x], &wanted)?;
        if wants_input {
            let by_input = found.pop().flatten();
            by_x = by_input.expect("a segment's output depends on its input");
        }
        for (&index, gradient) in params.iter().zip(found) {
            if let Some(gradient) = gradient {
                down.take(index, gradient);
            }
        }
        down.passed(segment)?;
    }
    Ok(of_input.then_some(by_x))
}
