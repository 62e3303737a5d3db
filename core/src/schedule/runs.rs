//! How runs begin, stop and end.

use super::step::Stepper;
use super::{Phase, Run, RunHead, RunPhase, Stop, StopFor, Work};
use crate::ids::{RunName, WorkId};
use crate::spec::RunSpec;

impl Stepper<'_> {
    pub(super) fn applied(&mut self, spec: RunSpec, tars: u32) {
        let name = spec.name().clone();
        let Some(run) = self.state.runs.get(&name) else {
            let (phase, created) = (RunPhase::Active, self.now);
            let run = Run::new(RunHead { spec, tars, phase, created, ended: None });
            // Its works are as they were made: only the head is stored.
            self.effects.changed.insert(super::Object::Run(name.clone()));
            self.effects.before.created.insert(name.clone());
            self.state.index.applied(&run, None);
            self.state.runs.insert(name, run);
            self.state.unsettled = true;
            return;
        };
        match run.head.phase {
            RunPhase::Failed { .. } | RunPhase::Cancelled => self.revive(&name),
            RunPhase::Stopping { .. } => {
                let then = StopFor::Resume;
                self.change_head(&name, |head| head.phase = RunPhase::Stopping { then });
            }
            RunPhase::Active | RunPhase::Finished => (),
        }
    }

    /// Takes an ended run up again: what had failed may try once more.
    fn revive(&mut self, name: &RunName) {
        let Some(facts) = self.state.index.run(name) else { return };
        let failed: Vec<WorkId> = facts.failed.iter().copied().collect();
        for id in failed {
            if !self.has_room() {
                // It stays failed, and ends the run again: applying once more goes on from there.
                break;
            }
            self.change(name, id, |work: &mut Work| {
                work.phase = Phase::Waiting;
                (work.strikes, work.fruitless) = (0, 0);
            });
        }
        self.change_head(name, |head| {
            head.phase = RunPhase::Active;
            head.ended = None;
        });
    }

    /// Asks every gang of a run to commit and leave.
    pub(super) fn stop_run(&mut self, name: &RunName, then: StopFor) {
        match self.state.runs.get(name).map(|run| &run.head.phase) {
            Some(RunPhase::Active) => {
                self.change_head(name, |head| head.phase = RunPhase::Stopping { then });
            }
            // Applied again and cancelled again: the last word counts.
            Some(RunPhase::Stopping { then: StopFor::Resume }) if then == StopFor::Cancel => {
                self.change_head(name, |head| head.phase = RunPhase::Stopping { then });
            }
            Some(
                RunPhase::Stopping { .. }
                | RunPhase::Finished
                | RunPhase::Failed { .. }
                | RunPhase::Cancelled,
            )
            | None => (),
        }
    }

    /// Stops what still runs of stopping runs, as much as fits.
    pub(super) fn stop_stopping_runs(&mut self) {
        let names: Vec<RunName> = self.state.index.stopping.iter().cloned().collect();
        for name in names {
            let facts = self.state.index.run(&name);
            let running: Vec<WorkId> =
                facts.into_iter().flat_map(|facts| facts.running.iter().copied()).collect();
            for id in running {
                if !self.has_room() {
                    self.effects.more = true;
                    return;
                }
                self.stop_gang(&name, id, Stop::RunStopping);
            }
        }
    }

    /// Ends the runs in which nothing is under way and nothing can start any more.
    pub(super) fn end_runs(&mut self) {
        let mut touched: Vec<RunName> = self.state.index.stopping.iter().cloned().collect();
        touched.extend(self.effects.before.works.keys().map(|(run, _)| run.clone()));
        touched.extend(self.effects.before.phases.keys().cloned());
        touched.sort();
        touched.dedup();
        for name in touched {
            self.end_run(&name);
        }
    }

    fn end_run(&mut self, name: &RunName) {
        let Some(run) = self.state.runs.get(name) else { return };
        let Some(facts) = self.state.index.run(name) else { return };
        let is_idle = facts.under_way == 0;
        let phase = match &run.head.phase {
            RunPhase::Active if facts.undone == 0 => RunPhase::Finished,
            RunPhase::Active => {
                let can_go_on = !is_idle || facts.resting > 0 || self.state.index.has_ready(run);
                let failed = facts.failed.first().and_then(|id| Some((id, run.works.get(id)?)));
                let Some((&work, Work { phase: Phase::Failed { failure }, .. })) = failed else {
                    return;
                };
                if can_go_on {
                    return;
                }
                RunPhase::Failed { work, failure: failure.clone() }
            }
            // The last work was done before it could be stopped.
            RunPhase::Stopping { .. } if facts.undone == 0 => RunPhase::Finished,
            RunPhase::Stopping { then } if is_idle => match then.clone() {
                StopFor::Cancel => RunPhase::Cancelled,
                StopFor::Failure { work, failure } => RunPhase::Failed { work, failure },
                StopFor::Resume => {
                    self.revive(name);
                    // What cannot go on ends at once: nothing may ever touch it again.
                    return self.end_run(name);
                }
            },
            RunPhase::Stopping { .. }
            | RunPhase::Finished
            | RunPhase::Failed { .. }
            | RunPhase::Cancelled => return,
        };
        let now = self.now;
        self.change_head(name, |head| {
            head.phase = phase;
            head.ended = Some(now);
        });
    }
}
