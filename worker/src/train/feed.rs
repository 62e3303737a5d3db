//! This rank's share of one batch after the other, from the cursor on.

use std::path::Path;
use std::sync::Arc;

use clade_core::job::Failure;
use clade_model::pixels::Pixels;
use clade_model::tch::{Cuda, Device};
use clade_model::tokenizer::Tokenizer;
use clade_pairs::loader::{Loaded, Loader, Place, Shape, Stream};
use clade_pairs::pictures::Detail;

use super::course::Course;
use crate::context::Context;

/// The loader, set up for one model whose batches go to `device`.
pub(super) fn open(
    context: &Context,
    course: &Course,
    device: Device,
) -> Result<Loader<Pixels>, Failure> {
    let spec = &context.spec.spec;
    let tokenizer = Tokenizer::from_file(Path::new(&spec.model.vocabulary))
        .map_err(|error| Failure::Config { message: format!("spec.model.vocabulary: {error}") })?;
    let context_length = course.config.context_length();
    let shape = Shape {
        image_size: course.config.image_size(),
        tokens: Arc::new(move |caption: &str| tokenizer.encode_row(caption, context_length)),
        memory: Arc::new(move |bytes| Pixels::for_device(bytes, device)),
        threads: threads(device),
        detail: Detail::Enough,
    };
    let stream = Stream {
        seed: spec.seed,
        model: course.model,
        global_batch: spec.training.global_batch,
        rank: context.job.rank,
        ranks: context.job.ranks,
        max_pixels: spec.dataset.max_pixels.0,
        max_bad_share: spec.dataset.max_bad_share.0,
    };
    let place = Place {
        store: context.store.clone(),
        runtime: context.runtime.clone(),
        cache: context.cache.clone(),
    };
    Loader::new(place, stream, &course.data, shape)
}

/// Threads that decode: on a CPU the ranks need the rest of the machine, beside a GPU it has little else
/// to do than to keep the rank fed.
fn threads(device: Device) -> usize {
    if !device.is_cuda() {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gpus = usize::try_from(Cuda::device_count()).unwrap_or(1).max(1);
    (cores / gpus).saturating_sub(1).max(1)
}

/// How many pairs of this rank's share could not be read, for its log.
pub(super) fn tell_masked(loaded: &Loaded<Pixels>, step: u64) {
    if !loaded.masked.is_empty() {
        tracing::debug!(step, masked = ?loaded.masked, "pairs of a batch are masked out");
    }
}
