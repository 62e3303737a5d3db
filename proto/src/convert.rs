//! Wire to core and back. Everything a stranger may send is judged here.

mod bounds;

use clade_core::ids::{CheckpointRef, Fence, Incarnation, ParseIdError, Step};
use clade_core::job::{Failure, Outcome};
use clade_core::rendezvous::Rendezvous;

use crate::v1;
pub use bounds::{LONGEST_NAME, MOST_SLOTS, shortened};
use bounds::{LONGEST_REASON, LONGEST_TEXT};

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
    #[error("field `{field}` has {found} bytes, but must have {expected}")]
    Length { field: &'static str, expected: usize, found: usize },
    #[error("field `{field}` has {found} bytes, and at most {most} are taken")]
    TooLong { field: &'static str, most: usize, found: usize },
    #[error("field `{field}` has {found} entries, and at most {most} are taken")]
    TooMany { field: &'static str, most: usize, found: usize },
    #[error("field `{field}` cannot be what it says: it is empty, or holds what no name has")]
    BadName { field: &'static str },
    #[error("{found} slots: must be 1 to {MOST_SLOTS}")]
    Slots { found: u32 },
    #[error("slot {slot} of a worker that has {slots} slots")]
    NoSuchSlot { slot: u32, slots: u32 },
}

/// Proves that a later stream of the same worker comes from the same agent.
pub type Secret = [u8; 16];

fn parsed<T: std::str::FromStr<Err = ParseIdError>>(
    field: &'static str,
    text: &str,
) -> Result<T, WireError> {
    bounds::id(field, text)?;
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

impl v1::Hello {
    /// The worker's secret, if it has the right length.
    pub fn secret(&self) -> Result<Secret, WireError> {
        self.secret.as_slice().try_into().map_err(|_| WireError::Length {
            field: "secret",
            expected: size_of::<Secret>(),
            found: self.secret.len(),
        })
    }
}

impl v1::RendezvousPosted {
    /// The fence whose rank 0 listens, and where.
    pub fn to_core(&self) -> Result<(Fence, Rendezvous), WireError> {
        let Self { fence, address } = self;
        let meets = Rendezvous::from(address.as_str());
        bounds::rendezvous("address", &meets)?;
        Ok((Fence::try_from(&required("fence", fence.clone())?)?, meets))
    }
}

impl v1::DeviceWithdrawn {
    /// The slot and the reason.
    pub fn to_core(&self) -> (u32, String) {
        (self.slot, shortened(&self.reason, LONGEST_REASON))
    }
}

impl v1::Device {
    /// Why it must not be used; none while it is healthy.
    pub fn withdrawal(&self) -> Option<(u32, String)> {
        let is_healthy = self.withdrawn.is_empty();
        (!is_healthy).then(|| (self.slot, shortened(&self.withdrawn, LONGEST_REASON)))
    }
}

impl v1::Refused {
    /// Builds a refusal of what ranks under `fence` said, or of a whole worker if there is none.
    pub fn new(fence: Option<&Fence>, reason: v1::RefusalReason, message: String) -> Self {
        Self { fence: fence.map(Into::into), reason: reason.into(), message }
    }

    /// The fence of the ranks that are meant; none if the whole worker is.
    pub fn to_core(&self) -> Result<Option<Fence>, WireError> {
        self.fence.as_ref().map(Fence::try_from).transpose()
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
            Wire::Done(done) => Outcome::Done { counts: bounds::counts(done)? },
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
        Failure::WorkerLost { .. } | Failure::WorkerLeft { .. } | Failure::NoProgress { .. } => {
            (Cause::Crashed, failure.to_string(), 0)
        }
    };
    v1::Failed { cause: cause.into(), message, seconds }
}

fn failure(rank: u32, failed: &v1::Failed) -> Failure {
    use v1::FailureCause as Cause;
    let message = shortened(&failed.message, LONGEST_TEXT);
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
    fn a_refusal_means_ranks_of_one_fence_or_the_whole_worker() {
        let fence = Fence {
            run: "clipart".parse().unwrap(),
            work: "expert-3".parse().unwrap(),
            incarnation: Incarnation(7),
        };
        let reason = v1::RefusalReason::Superseded;
        for fence in [Some(fence), None] {
            let wire = v1::Refused::new(fence.as_ref(), reason, "m".into());
            assert_eq!((wire.to_core(), wire.reason()), (Ok(fence), reason));
        }
        let nobody = v1::Refused { fence: Some(v1::Fence::default()), ..v1::Refused::default() };
        assert!(matches!(nobody.to_core(), Err(WireError::Malformed { field: "fence.run", .. })));
    }

    #[test]
    fn a_secret_has_sixteen_bytes() {
        let hello = |bytes| v1::Hello { secret: vec![7; bytes], ..v1::Hello::default() };
        assert_eq!(hello(16).secret(), Ok([7; 16]));
        let wrong = |found| Err(WireError::Length { field: "secret", expected: 16, found });
        assert_eq!((hello(0).secret(), hello(17).secret()), (wrong(0), wrong(17)));
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

    #[test]
    fn a_rank_that_says_too_much_is_heard_in_part_or_refused_and_never_kept_whole() {
        let exited =
            |outcome| v1::RankExited { outcome: Some(outcome), ..v1::RankExited::default() };
        let failed = v1::Failed {
            cause: v1::FailureCause::Data.into(),
            message: "x".repeat(3 << 20),
            seconds: 0,
        };
        let heard = exited(v1::rank_exited::Outcome::Failed(failed)).to_core();
        let Ok(Outcome::Failed(Failure::Data { message })) = heard else { panic!("{heard:?}") };
        assert_eq!(message.len(), LONGEST_TEXT);
        let done = |counts| exited(v1::rank_exited::Outcome::Done(v1::Done { counts })).to_core();
        let many = done((0..4_097).map(|it| (format!("c{it}"), 1)).collect());
        assert!(matches!(many, Err(WireError::TooMany { .. })), "{many:?}");
        let long = done([("x".repeat(65), 1)].into());
        assert!(matches!(long, Err(WireError::TooLong { .. })), "{long:?}");
        let fence = v1::Fence { run: "x".repeat(3 << 20), ..v1::Fence::default() };
        let error = Fence::try_from(&fence).unwrap_err();
        assert!(error.to_string().len() < 300, "it repeats what it refuses");
    }
}
