//! Wire to core and back. Everything a stranger may send is judged here.

use clade_core::ids::{CheckpointRef, Fence, Incarnation, ParseIdError, Step};
use clade_core::job::{Failure, Outcome};

use crate::v1;

/// Why a message means nothing to the core.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    #[error("field `{field}`: {source}")]
    Malformed {
        field: &'static str,
        #[source]
        source: ParseIdError,
    },
}

fn parsed<T: std::str::FromStr<Err = ParseIdError>>(
    field: &'static str,
    text: &str,
) -> Result<T, WireError> {
    text.parse().map_err(|source| WireError::Malformed { field, source })
}

/// Takes a message's sub-message that must be there.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::Missing(field))
}

impl From<&Fence> for v1::Fence {
    fn from(fence: &Fence) -> Self {
        let Fence { run, work, incarnation } = fence;
        Self { run: run.to_string(), work: work.to_string(), incarnation: incarnation.0 }
    }
}

impl TryFrom<&v1::Fence> for Fence {
    type Error = WireError;

    fn try_from(wire: &v1::Fence) -> Result<Self, WireError> {
        let v1::Fence { run, work, incarnation } = wire;
        Ok(Self {
            run: parsed("fence.run", run)?,
            work: parsed("fence.work", work)?,
            incarnation: Incarnation(*incarnation),
        })
    }
}

impl From<&CheckpointRef> for v1::Checkpoint {
    fn from(checkpoint: &CheckpointRef) -> Self {
        let CheckpointRef { model, incarnation, step, manifest } = checkpoint;
        Self {
            model: model.to_string(),
            incarnation: incarnation.0,
            step: step.0,
            manifest: manifest.to_string(),
        }
    }
}

impl TryFrom<&v1::Checkpoint> for CheckpointRef {
    type Error = WireError;

    fn try_from(wire: &v1::Checkpoint) -> Result<Self, WireError> {
        let v1::Checkpoint { model, incarnation, step, manifest } = wire;
        Ok(Self {
            model: parsed("checkpoint.model", model)?,
            incarnation: Incarnation(*incarnation),
            step: Step(*step),
            manifest: parsed("checkpoint.manifest", manifest)?,
        })
    }
}

impl v1::CheckpointWritten {
    /// The fence that speaks, and the checkpoint it wrote; none if a job claims to have written one.
    pub fn to_core(&self) -> Result<(Fence, CheckpointRef), WireError> {
        let fence = Fence::try_from(&required("fence", self.fence.clone())?)?;
        let model = required("fence.work of a model", fence.work.model())?;
        let checkpoint = CheckpointRef {
            model,
            incarnation: fence.incarnation,
            step: Step(self.step),
            manifest: parsed("manifest", &self.manifest)?,
        };
        Ok((fence, checkpoint))
    }
}

impl v1::RankExited {
    /// Builds the report of a rank's end.
    pub fn new(fence: &Fence, rank: u32, slot: u32, outcome: &Outcome) -> Self {
        use v1::rank_exited::Outcome as Wire;
        let outcome = match outcome {
            Outcome::Done { counts } => {
                Wire::Done(v1::Done { counts: counts.clone().into_iter().collect() })
            }
            Outcome::Stopped => Wire::Stopped(v1::Stopped {}),
            Outcome::Failed(failure) => Wire::Failed(failed(failure)),
        };
        Self { fence: Some(fence.into()), rank, slot, outcome: Some(outcome) }
    }

    /// The outcome as the core knows it.
    pub fn to_core(&self) -> Result<Outcome, WireError> {
        use v1::rank_exited::Outcome as Wire;
        Ok(match required("outcome", self.outcome.as_ref())? {
            Wire::Done(v1::Done { counts }) => {
                Outcome::Done { counts: counts.iter().map(|(k, v)| (k.clone(), *v)).collect() }
            }
            Wire::Stopped(v1::Stopped {}) => Outcome::Stopped,
            Wire::Failed(failed) => Outcome::Failed(failure(self.rank, failed)),
        })
    }
}

fn failed(failure: &Failure) -> v1::Failed {
    use v1::FailureCause as Cause;
    let (cause, message, seconds) = match failure {
        Failure::Data { message } => (Cause::Data, message.clone(), 0),
        Failure::Config { message } => (Cause::Config, message.clone(), 0),
        Failure::Storage { message } => (Cause::Storage, message.clone(), 0),
        Failure::Crashed { message, .. } => (Cause::Crashed, message.clone(), 0),
        Failure::Launch { message, .. } => (Cause::Launch, message.clone(), 0),
        Failure::Stalled { seconds, .. } => (Cause::Stalled, String::new(), *seconds),
        Failure::PeerLost { .. } => (Cause::PeerLost, String::new(), 0),
        // The coordinator's own conclusions; an agent that said so would mean a crash.
        Failure::WorkerLost { worker } | Failure::WorkerLeft { worker } => {
            (Cause::Crashed, format!("worker {worker} is gone"), 0)
        }
    };
    v1::Failed { cause: cause.into(), message, seconds }
}

fn failure(rank: u32, failed: &v1::Failed) -> Failure {
    use v1::FailureCause as Cause;
    let message = failed.message.clone();
    match failed.cause() {
        Cause::Data => Failure::Data { message },
        Cause::Config => Failure::Config { message },
        Cause::Storage => Failure::Storage { message },
        Cause::Unspecified | Cause::Crashed => Failure::Crashed { rank, message },
        Cause::Launch => Failure::Launch { rank, message },
        Cause::Stalled => Failure::Stalled { rank, seconds: failed.seconds },
        Cause::PeerLost => Failure::PeerLost { rank },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_survives_the_wire() {
        let fence = Fence {
            run: "clipart".parse().unwrap(),
            work: "expert-3".parse().unwrap(),
            incarnation: Incarnation(7),
        };
        let message = || "m".to_owned();
        let outcomes = [
            Outcome::Done { counts: [("pairs".to_owned(), 3)].into() },
            Outcome::Stopped,
            Outcome::Failed(Failure::Data { message: message() }),
            Outcome::Failed(Failure::Config { message: message() }),
            Outcome::Failed(Failure::Storage { message: message() }),
            Outcome::Failed(Failure::Crashed { rank: 1, message: message() }),
            Outcome::Failed(Failure::Launch { rank: 1, message: message() }),
            Outcome::Failed(Failure::Stalled { rank: 1, seconds: 60 }),
            Outcome::Failed(Failure::PeerLost { rank: 1 }),
        ];
        for outcome in outcomes {
            let wire = v1::RankExited::new(&fence, 1, 0, &outcome);
            assert_eq!(wire.to_core(), Ok(outcome));
            assert_eq!(Fence::try_from(wire.fence.as_ref().unwrap()), Ok(fence.clone()));
        }
    }

    #[test]
    fn a_job_cannot_claim_a_checkpoint() {
        let wire = v1::CheckpointWritten {
            fence: Some(v1::Fence { run: "r".into(), work: "embed.1".into(), incarnation: 1 }),
            step: 3,
            manifest: "ab".repeat(32),
        };
        assert_eq!(wire.to_core(), Err(WireError::Missing("fence.work of a model")));
    }
}
