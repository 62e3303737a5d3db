//! The passes over one micro-batch: forward for its features, backward for their gradient.
//!
//! A batch that is cut into micro-batches has the loss, and the gradient, of the whole: the features
//! of all are computed first, without a graph; then each micro-batch is run forward once more, with
//! one, and takes the gradient of its own features back ("gradient caching", Gao et al. 2021). The
//! last micro-batch keeps its graph from the first pass, so a batch of one costs nothing extra.

use std::ops::Range;

use tch::Tensor;

use super::StepError;
use super::buckets::{Place, Reducer, Tower};
use super::gradients::Gradients;
use crate::chain::{self, Downhill, Keep, Kept};
use crate::clip::ClipModel;
use crate::native::NativeError;
use crate::pixels::Pixels;
use crate::text::Captions;

/// Some pairs of a rank's batch, on the model's device.
pub(super) struct Micro {
    /// Which pairs of the rank's batch.
    pub(super) range: Range<usize>,
    /// `[micro, 3, size, size]` u8
    pixels: Tensor,
    captions: Captions,
}

/// What a forward pass leaves for the backward pass.
pub(super) struct Trace {
    vision: Vec<Kept>,
    /// By part of the captions.
    text: Vec<Vec<Kept>>,
}

/// The features of one micro-batch, without a graph.
pub(super) struct Features {
    pub(super) images: Tensor,
    pub(super) captions: Tensor,
}

/// Adds one tower's gradients to all others, and hands on what is done.
struct Adding<'a, 'b> {
    gradients: &'a mut Gradients,
    tower: Tower,
    /// None while more is to come for the same parameters.
    done: Option<&'a mut Reducer<'b>>,
}

impl Downhill<StepError> for Adding<'_, '_> {
    fn take(&mut self, index: usize, gradient: Tensor) {
        self.gradients.add(index, gradient);
    }

    fn passed(&mut self, segment: usize) -> Result<(), StepError> {
        let place = Place { tower: self.tower, segment };
        match &mut self.done {
            // The rows of the token table come after the first segment of all.
            Some(reducer) if place != Place::LAST => Ok(reducer.passed(place, self.gradients)?),
            Some(_) | None => Ok(()),
        }
    }
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

    /// The features alone.
    pub(super) fn features(&self, model: &ClipModel) -> Features {
        let _no_graph = tch::no_grad_guard();
        let images = chain::forward(model.vision(), &model.normalise(&self.pixels));
        let parts = self.captions.parts.iter();
        let parts: Vec<Tensor> =
            parts.map(|part| model.text().forward_rows(&model.text().rows(part), part)).collect();
        Features { images, captions: self.captions.in_order(&parts) }
    }

    /// The features, and the way back to the parameters.
    pub(super) fn forward(&self, model: &ClipModel, keep: Keep) -> (Features, Trace) {
        let pixels = model.normalise(&self.pixels);
        let (vision, images) = chain::forward_keeping(model.vision(), keep, &pixels, false);
        let mut text = Vec::new();
        let mut parts = Vec::new();
        for part in &self.captions.parts {
            let rows = tch::no_grad(|| model.text().rows(part));
            let chain = part.on(model.text());
            let (kept, features) = chain::forward_keeping(&chain, keep, &rows, true);
            text.push(kept);
            parts.push(features);
        }
        let captions = self.captions.in_order(&parts);
        (Features { images, captions }, Trace { vision, text })
    }

    /// Takes the gradients of this micro-batch's features back to the parameters. With a reducer it is the
    /// step's last one, and gradients are handed on as they are done.
    ///
    /// # Shapes
    ///
    /// - `by_images`, `by_captions`: `[micro, embed]`
    pub(super) fn backward(
        &self,
        model: &ClipModel,
        trace: Trace,
        [by_images, by_captions]: [Tensor; 2],
        gradients: &mut Gradients,
        mut done: Option<&mut Reducer<'_>>,
    ) -> Result<(), StepError> {
        let leaves = model.params().leaves();
        let Trace { vision, text } = trace;
        let mut adding = Adding { gradients, tower: Tower::Vision, done: done.as_deref_mut() };
        chain::backward(model.vision(), vision, by_images, leaves, false, &mut adding)?;
        let last = self.captions.parts.len().saturating_sub(1);
        for ((at, part), kept) in self.captions.parts.iter().enumerate().zip(text) {
            let by_part = part.pick(&by_captions);
            let done = done.as_deref_mut().filter(|_| at == last);
            let mut adding = Adding { gradients, tower: Tower::Text, done };
            let chain = part.on(model.text());
            let by_rows = chain::backward(&chain, kept, by_part, leaves, true, &mut adding)?;
            gradients.add_rows(&part.ids, &by_rows.expect("it was asked for"));
        }
        Ok(())
    }
}
