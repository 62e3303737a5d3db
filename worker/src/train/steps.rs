//! The steps themselves, from the origin to the due step.

use std::sync::Arc;
use std::time::Instant;

use clade_core::job::Failure;
use clade_model::train::{StepError, StepReport, Trainer};

use super::course::Course;
use super::feed::tell_masked;
use super::gang::{Gang, Signs};
use super::keeper::{self, Keeper};
use super::metrics::{RefusedLine, StepLine, digest};
use crate::context::{Context, Counts, Ending, Reporter as _};
use crate::data::loader::{Loaded, Loader};
use crate::rank::Uplink;

/// So many batches in a row without a finite loss mean that the data or the settings are at fault.
const REFUSALS_IN_A_ROW: u32 = 3;

pub(super) struct Steps<'a> {
    pub(super) context: &'a Context,
    pub(super) course: &'a Course,
    pub(super) gang: Gang,
    pub(super) trainer: Trainer,
    pub(super) loader: Loader,
    pub(super) cursor: u64,
    /// Rank 0 has one.
    pub(super) keeper: Option<Keeper>,
    pub(super) uplink: &'a Arc<Uplink>,
}

impl Steps<'_> {
    pub(super) fn run(mut self) -> Result<Counts, Ending> {
        let ended = self.go();
        if ended.is_err()
            && let Err(failure) = self.settle()
        {
            tracing::warn!(%failure, "the last checkpoint was not written");
        }
        ended
    }

    fn go(&mut self) -> Result<Counts, Ending> {
        let due = self.course.due;
        let mut refusals = 0;
        self.tell(None);
        while self.trainer.steps_done() < due {
            let Signs { stop, save } = self.agree()?;
            if stop {
                self.save()?;
                self.settle()?;
                return Err(Ending::Stopped);
            }
            if save {
                self.save()?;
            }
            let started = Instant::now();
            let loaded = self.loader.batch(self.cursor)?;
            tell_masked(&loaded, self.trainer.steps_done());
            let result = self.trainer.step(&loaded.batch, self.gang.collective());
            self.cursor += u64::from(self.course.global_batch);
            match result {
                Ok(report) => {
                    refusals = 0;
                    self.record(&report, &loaded, started);
                    self.tell(Some(report.loss));
                }
                Err(error) => {
                    refusals += 1;
                    self.refused(&error, &loaded, refusals)?;
                }
            }
        }
        self.save()?;
        self.settle()?;
        Ok([("steps".to_owned(), due), ("pairs".to_owned(), self.cursor)].into())
    }

    /// What all ranks do next.
    fn agree(&mut self) -> Result<Signs, Ending> {
        let save = self.keeper.as_mut().map_or(Ok(false), Keeper::is_due)?;
        let own = Signs { stop: self.context.is_stopping(), save };
        self.gang.agree(own).map_err(|error| self.gang.broken(self.context, &error))
    }

    fn save(&mut self) -> Result<(), Failure> {
        self.keeper.as_mut().map_or(Ok(()), |keeper| keeper.save(&self.trainer, self.cursor))
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.keeper.as_mut().map_or(Ok(()), Keeper::settle)
    }

    fn tell(&self, loss: Option<f64>) {
        if self.keeper.is_some() {
            self.uplink.progress(self.trainer.steps_done(), self.course.due, loss);
        } else {
            self.uplink.worked();
        }
    }

    fn record(&mut self, report: &StepReport, loaded: &Loaded, started: Instant) {
        let Some(keeper) = &mut self.keeper else { return };
        let seconds = started.elapsed().as_secs_f64();
        let batch = self.course.global_batch;
        keeper.record(&StepLine::new(report, batch, seconds, &loaded.keys, loaded.epoch));
    }

    /// A step was not applied: the next batch is tried, unless that has happened too often.
    fn refused(&mut self, error: &StepError, loaded: &Loaded, refusals: u32) -> Result<(), Ending> {
        let rank = self.context.job.rank;
        match error {
            StepError::NotFinite { .. } | StepError::NoValidPairs { .. } => (),
            StepError::Batch { .. } | StepError::Token { .. } => {
                return Err(Failure::Crashed { rank, message: error.to_string() }.into());
            }
            StepError::Collective(error) => return Err(self.gang.broken(self.context, error)),
        }
        let step = self.trainer.steps_done();
        tracing::warn!(step, %error, refusals, "a batch was refused");
        if let Some(keeper) = &mut self.keeper {
            keeper.record(&RefusedLine {
                after_step: step,
                refused: error.to_string(),
                keys: digest(&loaded.keys),
                epoch: loaded.epoch,
            });
        }
        if refusals < REFUSALS_IN_A_ROW {
            return Ok(());
        }
        let job = &self.context.job;
        let listed = match &self.keeper {
            Some(keeper) => keeper.accuse(step, &loaded.keys)?,
            None => keeper::accusation(&job.run, self.course.model, job.incarnation, step),
        };
        let message = format!(
            "{refusals} batches in a row were refused after step {step}, the last because {error}; \
             its pairs are listed in `{listed}`; look at them, or lower training.learningRate.peak"
        );
        Err(Failure::Data { message }.into())
    }
}
