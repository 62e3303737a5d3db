//! Training of one model by one rank of its gang.
//!
//! All ranks make the same steps on their shares of the same global batches, and agree at every
//! step whether to go on, to save or to stop. Rank 0 alone writes: checkpoints (manifest last),
//! metrics, progress. A model goes on from its own newest sound checkpoint; only one that never
//! had any starts from the seed model's, and only the seed model starts from nothing.

mod course;
mod feed;
mod gang;
mod how;
pub(crate) mod interval;
pub(crate) mod keeper;
mod metrics;
mod origin;
mod steps;

use std::sync::Arc;

use clade_core::ids::ModelId;
use clade_model::device;

use crate::context::{Context, Counts, Ending};
use crate::rank::Uplink;

use course::Course;
use gang::Gang;
use keeper::Keeper;
use origin::Origin;
use steps::Steps;

/// Trains `model` to its due step, or until asked to stop.
pub fn run(context: &Context, model: ModelId, uplink: &Arc<Uplink>) -> Result<Counts, Ending> {
    let mut course = Course::plot(context, model)?;
    let mut gang = Gang::gather(context, course.placement, uplink)?;
    course.sums = gang.sums();
    gang.compare_devices(context, course.placement)?;
    let Origin { trainer, cursor, parent } = Origin::find(context, &course, &mut gang)?;
    let keeper = if context.job.rank == 0 {
        Some(Keeper::new(context, &course, Arc::clone(uplink), parent, trainer.steps_done())?)
    } else {
        None
    };
    let loader = feed::open(context, &course, course.placement.device)?;
    let trainer = trainer.with_options(course.options);
    let (device, options) = (device::label(course.placement.device), course.options);
    tracing::info!(device, precision = %course.placement.precision, ?options, "training");
    Steps::new(context, &course, gang, trainer, loader, cursor, keeper, uplink).run()
}
