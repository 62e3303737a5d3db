//! The passes over one micro-batch: forward for its features, backward for their gradient.
//!
//! A batch that is cut into micro-batches has the loss, and the gradient, of the whole: the features
//! of all are computed first, without a graph; then each micro-batch is run forward once more, with
//! one, and takes the gradient of its own features back ("gradient caching", Gao et al. 2021). The
//! last micro-batch keeps its graph from the first pass, so a batch of one costs nothing extra.

use std::ops::Range;

use tch::Tensor;

use super::gradients::Gradients;
use crate::chain;
use crate::clip::{ClipModel, LOGIT_SCALE};
use crate::native::{self, NativeError};
use crate::pixels::Pixels;
use crate::text::{Captions, TOKEN_EMBEDDING};

/// Some pairs of a rank's batch, on the model's device.
pub(super) struct Micro {
    /// Which pairs of the rank's batch.
    pub(super) range: Range<usize>,
    /// `[micro, 3, size, size]` u8
    pixels: Tensor,
    captions: Captions,
}

/// What a forward pass leaves for the backward pass.
pub(super) enum Trace {
    /// Nothing: the forward pass is run again.
    Nothing,
    /// The graph.
    Graph {
        /// `[micro, embed]`
        images: Tensor,
        /// `[micro, embed]`
        captions: Tensor,
        /// Rows of the token table, one leaf per part.
        rows: Vec<Tensor>,
    },
    /// The input of every block.
    Inputs { vision: Vec<Tensor>, text: Vec<Vec<Tensor>> },
}

/// The features of one micro-batch, without a graph.
pub(super) struct Features {
    pub(super) images: Tensor,
    pub(super) captions: Tensor,
}

/// What a forward pass is to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    Graph,
    Inputs,
}

impl Micro {
    /// Puts pairs `range` on the device; nobody waits for a GPU.
    pub(super) fn upload(
        model: &ClipModel,
        pixels: &Pixels,
        tokens: &[i64],
        range: Range<usize>,
    ) -> Result<Self, NativeError> {
        let (size, context) = (model.config().image_size(), model.config().context_length());
        let side = i64::try_from(size).expect("a picture's side is small");
        let per_picture = 3 * size * size;
        let bytes = range.start * per_picture..range.end * per_picture;
        let pixels = pixels.send(bytes, model.device())?;
        let pixels = pixels.view([-1, 3, side, side]);
        let tokens = &tokens[range.start * context..range.end * context];
        Ok(Self { range, pixels, captions: model.text().prepare(tokens, context) })
    }

    pub(super) fn forward(&self, model: &ClipModel, keep: Keep) -> (Features, Trace) {
        match keep {
            Keep::Nothing => {
                let _no_graph = tch::no_grad_guard();
                let images = chain::forward(model.vision(), &model.normalise(&self.pixels));
                let parts = self.captions.parts.iter();
                let parts: Vec<Tensor> = parts
                    .map(|part| model.text().forward_rows(&model.text().rows(part), part))
                    .collect();
                let captions = self.captions.in_order(&parts);
                (Features { images, captions }, Trace::Nothing)
            }
            Keep::Graph => {
                let images = chain::forward(model.vision(), &model.normalise(&self.pixels));
                let mut rows = Vec::new();
                let mut parts = Vec::new();
                for part in &self.captions.parts {
                    let leaf = tch::no_grad(|| model.text().rows(part)).set_requires_grad(true);
                    parts.push(model.text().forward_rows(&leaf, part));
                    rows.push(leaf);
                }
                let captions = self.captions.in_order(&parts);
                let features = Features { images: images.detach(), captions: captions.detach() };
                (features, Trace::Graph { images, captions, rows })
            }
            Keep::Inputs => {
                let pixels = model.normalise(&self.pixels);
                let (vision, images) = chain::forward_keeping_inputs(model.vision(), &pixels);
                let mut text = Vec::new();
                let mut parts = Vec::new();
                for part in &self.captions.parts {
                    let rows = tch::no_grad(|| model.text().rows(part));
                    let (inputs, features) =
                        chain::forward_keeping_inputs(&part.on(model.text()), &rows);
                    text.push(inputs);
                    parts.push(features);
                }
                let captions = self.captions.in_order(&parts);
                (Features { images, captions }, Trace::Inputs { vision, text })
            }
        }
    }

    /// Takes the gradients of this micro-batch's features back to the parameters.
    ///
    /// # Shapes
    ///
    /// - `by_images`, `by_captions`: `[micro, embed]`
    pub(super) fn backward(
        &self,
        model: &ClipModel,
        trace: Trace,
        by_images: &Tensor,
        by_captions: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<(), NativeError> {
        let leaves = model.params().leaves();
        match trace {
            Trace::Nothing => unreachable!("a forward pass was run for this one"),
            Trace::Graph { images, captions, rows } => {
                let layout = model.params().layout();
                let mut places = Vec::new();
                let mut inputs = Vec::new();
                for (index, (entry, leaf)) in layout.entries().iter().zip(leaves).enumerate() {
                    if entry.name != TOKEN_EMBEDDING && entry.name != LOGIT_SCALE {
                        places.push(index);
                        inputs.push(leaf);
                    }
                }
                inputs.extend(&rows);
                let outputs = [&images, &captions];
                let mut found = native::grad(&outputs, &[by_images, by_captions], &inputs)?;
                let by_rows = found.split_off(places.len());
                for (part, by_rows) in self.captions.parts.iter().zip(by_rows) {
                    gradients.add_rows(&part.ids, &by_rows.expect("captions depend on their rows"));
                }
                for (index, gradient) in places.into_iter().zip(found) {
                    if let Some(gradient) = gradient {
                        gradients.add(index, gradient);
                    }
                }
            }
            Trace::Inputs { vision, text } => {
                let mut take = |index, gradient| gradients.add(index, gradient);
                let by_images = by_images.shallow_clone();
                chain::backward(model.vision(), vision, by_images, leaves, false, &mut take)?;
                for (part, inputs) in self.captions.parts.iter().zip(text) {
                    let by_part = part.pick(by_captions);
                    let mut take = |index, gradient| gradients.add(index, gradient);
                    let chain = part.on(model.text());
                    let by_rows =
                        chain::backward(&chain, inputs, by_part, leaves, true, &mut take)?;
                    gradients.add_rows(&part.ids, &by_rows.expect("it was asked for"));
                }
            }
        }
        Ok(())
    }
}
