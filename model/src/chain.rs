//! A tower as a chain of segments, and its gradient with or without keeping what is between them.
//!
//! Keeping everything is the plain way: one graph, one backward pass. With recomputation only each
//! segment's input is kept; the backward pass runs every segment forward once more, from the last
//! to the first, and takes its gradient alone. The numbers are the same; memory falls from all
//! activations to one block's, for a third more work.

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

/// Runs all segments.
pub(crate) fn forward(chain: &dyn Chain, input: &Tensor) -> Tensor {
    (0..chain.len()).fold(input.shallow_clone(), |x, segment| chain.run(segment, &x))
}

/// Runs all segments without a graph; returns the input of each, and the output.
pub(crate) fn forward_keeping_inputs(chain: &dyn Chain, input: &Tensor) -> (Vec<Tensor>, Tensor) {
    let _no_graph = tch::no_grad_guard();
    let mut inputs = Vec::with_capacity(chain.len());
    let mut x = input.shallow_clone();
    for segment in 0..chain.len() {
        let next = chain.run(segment, &x);
        inputs.push(x);
        x = next;
    }
    (inputs, x)
}

/// Takes the gradient of a chain whose inputs were kept.
///
/// `take` is given each parameter's gradient once. Returns the gradient of the chain's input, if
/// `of_input`.
pub(crate) fn backward(
    chain: &dyn Chain,
    mut inputs: Vec<Tensor>,
    by_output: Tensor,
    leaves: &[Tensor],
    of_input: bool,
    take: &mut dyn FnMut(usize, Tensor),
) -> Result<Option<Tensor>, NativeError> {
    let mut by_x = by_output;
    for segment in (0..chain.len()).rev() {
        let input = inputs.pop().expect("an input was kept for every segment");
        let wants_input = segment > 0 || of_input;
        let input = input.detach().set_requires_grad(wants_input);
        let output = chain.run(segment, &input);
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
                take(index, gradient);
            }
        }
    }
    Ok(of_input.then_some(by_x))
}
