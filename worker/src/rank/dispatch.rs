//! Which code does which work.

use std::sync::Arc;

use clade_core::ids::{JobId, Stage, WorkId};

use super::Uplink;
use crate::context::{Context, Counts, Ending};
use crate::{stages, train};

pub(super) fn perform(context: &Context, uplink: &Arc<Uplink>) -> Result<Counts, Ending> {
    match context.job.work {
        WorkId::Model(model) => train::run(context, model, uplink),
        WorkId::Job(JobId { stage, part }) => match stage {
            Stage::Index => stages::index::run(context, part),
            Stage::Catalog => stages::catalog::run(context, part),
            Stage::Embed => stages::embed::run(context, part),
            Stage::Cluster => stages::cluster::run(context, part),
            Stage::Assign => stages::assign::run(context, part),
            Stage::Shard => stages::shard::run(context, part),
            Stage::Seal => stages::seal::run(context, part),
            Stage::Evaluate => stages::evaluate::run(context, part),
            Stage::Report => stages::report::run(context, part),
            Stage::Publish => stages::publish::run(context, part),
        },
    }
}
