//! The steps themselves, from the origin to the due step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clade_core::job::Failure;
use clade_model::pixels::Pixels;
use clade_model::train::{Batch, StepError, StepReport, Trainer};
use clade_pairs::loader::{Loaded, Loader};

use super::course::Course;
use super::feed::tell_masked;
use super::gang::{Gang, Signs};
use super::keeper::{self, Keeper};
use super::metrics::{RefusedLine, StepLine, digest};
use crate::context::{Context, Counts, Ending, Reporter as _};
use crate::rank::Uplink;

/// So many batches in a row without a finite loss mean that the data or the settings are at fault.
const REFUSALS_IN_A_ROW: u32 = 3;

pub(super) struct Steps<'a> {
    context: &'a Context,
    course: &'a Course,
    gang: Gang,
    trainer: Trainer,
    loader: Loader<Pixels>,
    cursor: u64,
    /// Rank 0 has one.
    keeper: Option<Keeper>,
    uplink: &'a Arc<Uplink>,
    /// Steps begun and not looked at yet: more than one on a GPU only.
    under_way: VecDeque<UnderWay>,
    /// Batches refused since the last that was not.
    refusals: u32,
    looked_at: Instant,
    /// Time spent on checkpoints since then: rank 0's alone, so it makes nobody a straggler.
    saved_for: Duration,
}

/// What must be known of a step when its outcome is.
struct UnderWay {
    keys: Vec<String>,
    epoch: u64,
    begun: Instant,
}

impl<'a> Steps<'a> {
    #[expect(clippy::too_many_arguments, reason = "everything a rank has, once")]
    pub(super) fn new(
        context: &'a Context,
        course: &'a Course,
        gang: Gang,
        trainer: Trainer,
        loader: Loader<Pixels>,
        cursor: u64,
        keeper: Option<Keeper>,
        uplink: &'a Arc<Uplink>,
    ) -> Self {
        let under_way = VecDeque::new();
        let looked_at = Instant::now();
        Self {
            context,
            course,
            gang,
            trainer,
            loader,
            cursor,
            keeper,
            uplink,
            under_way,
            refusals: 0,
            looked_at,
            saved_for: Duration::ZERO,
        }
    }

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
        self.tell(None);
        // The gang has met, and waited for its slowest to load the model.
        self.gang.take_waited();
        self.looked_at = Instant::now();
        while self.trainer.steps_done() < due {
            // A step under way may yet be refused; then one more is due.
            if self.trainer.steps_done() + self.trainer.in_flight() as u64 == due {
                self.look()?;
                continue;
            }
            let Signs { stop, save } = self.agree()?;
            if stop {
                self.save()?;
                self.settle()?;
                return Err(Ending::Stopped);
            }
            if save {
                self.save()?;
            }
            let begun = Instant::now();
            let Some(loaded) = self.load()? else {
                // All ranks are at the same step, so what this one has is what the model is.
                self.save()?;
                self.settle()?;
                return Err(Ending::Stopped);
            };
            tell_masked(&loaded, self.trainer.steps_done());
            let Loaded { pixels, tokens, valid, keys, epoch, .. } = loaded;
            let batch = Batch { pixels, tokens, valid };
            let result = self.trainer.begin(&batch, self.gang.collective());
            result.map_err(|error| self.fatal(&error))?;
            self.cursor += u64::from(self.course.global_batch);
            self.under_way.push_back(UnderWay { keys, epoch, begun });
            if self.trainer.in_flight() == self.trainer.max_in_flight() {
                self.look()?;
            }
        }
        self.save()?;
        self.settle()?;
        Ok([("steps".to_owned(), due), ("pairs".to_owned(), self.cursor)].into())
    }

    /// The batch at the cursor; nothing if the rank is asked to stop while it waits for it.
    fn load(&mut self) -> Result<Option<Loaded<Pixels>>, Failure> {
        let (context, uplink) = (self.context, self.uplink);
        self.loader.batch_while(self.cursor, || {
            uplink.worked();
            !context.is_stopping()
        })
    }

    /// Looks at the outcome of the oldest step under way.
    fn look(&mut self) -> Result<(), Ending> {
        let outcome = self.trainer.outcome().expect("a step is under way");
        let step = self.under_way.pop_front().expect("its keys are known");
        let began = step.begun.max(self.looked_at);
        let now = Instant::now();
        let others = self.gang.take_waited() + std::mem::take(&mut self.saved_for);
        self.uplink.step_made(now.duration_since(self.looked_at).saturating_sub(others));
        self.looked_at = now;
        match outcome {
            Ok(report) => {
                self.refusals = 0;
                self.record(&report, &step, self.looked_at.duration_since(began).as_secs_f64());
                self.tell(Some(report.loss));
                Ok(())
            }
            Err(error) => {
                self.refusals += 1;
                self.refused(&error, &step)
            }
        }
    }

    /// What all ranks do next.
    fn agree(&mut self) -> Result<Signs, Ending> {
        let save = self.keeper.as_mut().map_or(Ok(false), Keeper::is_due)?;
        let own = Signs { stop: self.context.is_stopping(), save };
        self.gang.agree(own).map_err(|error| self.gang.broken(self.context, &error))
    }

    fn save(&mut self) -> Result<(), Ending> {
        while self.trainer.in_flight() > 0 {
            self.look()?;
        }
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        let begun = Instant::now();
        keeper.save(&self.trainer, self.cursor)?;
        self.saved_for += begun.elapsed();
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.keeper.as_mut().map_or(Ok(()), Keeper::settle)
    }

    fn tell(&self, loss: Option<f64>) {
        // The loss is every rank's; one of them tells it.
        let loss = loss.filter(|_| self.keeper.is_some());
        self.uplink.progress(self.trainer.steps_done(), self.course.due, loss);
    }

    fn record(&mut self, report: &StepReport, step: &UnderWay, seconds: f64) {
        let Some(keeper) = &mut self.keeper else { return };
        let batch = self.course.global_batch;
        keeper.record(&StepLine::new(report, batch, seconds, &step.keys, step.epoch));
    }

    /// What an error means that leaves the trainer or the gang unusable.
    fn fatal(&self, error: &StepError) -> Ending {
        let rank = self.context.job.rank;
        match error {
            StepError::Collective(error) => self.gang.broken(self.context, error),
            StepError::OutOfMemory(_) => {
                let message = format!("{error}; see training.microBatch and training.recompute");
                Failure::Config { message }.into()
            }
            StepError::NotFinite { .. }
            | StepError::NoValidPairs { .. }
            | StepError::Batch { .. }
            | StepError::Token { .. }
            | StepError::Torch(_) => Failure::Crashed { rank, message: error.to_string() }.into(),
        }
    }

    /// A step was not applied: the next batch is tried, unless that has happened too often.
    fn refused(&mut self, error: &StepError, refused: &UnderWay) -> Result<(), Ending> {
        match error {
            StepError::NotFinite { .. } | StepError::NoValidPairs { .. } => (),
            StepError::Batch { .. }
            | StepError::Token { .. }
            | StepError::OutOfMemory(_)
            | StepError::Torch(_)
            | StepError::Collective(_) => return Err(self.fatal(error)),
        }
        let (step, refusals) = (self.trainer.steps_done(), self.refusals);
        tracing::warn!(step, %error, refusals, "a batch was refused");
        if let Some(keeper) = &mut self.keeper {
            keeper.record(&RefusedLine {
                after_step: step,
                refused: error.to_string(),
                keys: digest(&refused.keys),
                epoch: refused.epoch,
            });
        }
        if refusals < REFUSALS_IN_A_ROW {
            return Ok(());
        }
        let job = &self.context.job;
        let listed = match &self.keeper {
            Some(keeper) => keeper.accuse(step, &refused.keys)?,
            None => keeper::accusation(&job.run, self.course.model, job.incarnation, step),
        };
        let message = format!(
            "{refusals} batches in a row were refused after step {step}, the last because {error}; \
             its pairs are listed in `{listed}`; look at them, or lower training.learningRate.peak"
        );
        Err(Failure::Data { message }.into())
    }
}
