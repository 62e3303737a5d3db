//! This rank's share of one batch after the other, from the cursor on.

use std::path::Path;
use std::sync::Arc;

use clade_core::job::Failure;
use clade_model::tokenizer::Tokenizer;

use super::course::Course;
use crate::context::Context;
use crate::data::loader::{Loaded, Loader, Shape};

/// The rest of the machine belongs to the ranks.
const DECODING_THREADS: usize = 1;

/// The loader, set up for one model.
pub(super) fn open(context: &Context, course: &Course) -> Result<Loader, Failure> {
    let vocabulary = Path::new(&context.spec.spec.model.vocabulary);
    let tokenizer = Tokenizer::from_file(vocabulary)
        .map_err(|error| Failure::Config { message: format!("spec.model.vocabulary: {error}") })?;
    let context_length = course.config.context_length();
    let shape = Shape {
        image_size: course.config.image_size(),
        tokens: Arc::new(move |caption: &str| tokenizer.encode_row(caption, context_length)),
        threads: DECODING_THREADS,
    };
    Loader::new(context, course.model, &course.data, shape)
}

/// How many pairs of this rank's share could not be read, for its log.
pub(super) fn tell_masked(loaded: &Loaded, step: u64) {
    if !loaded.masked.is_empty() {
        tracing::debug!(step, masked = ?loaded.masked, "pairs of a batch are masked out");
    }
}
