//! Why the engine did not take an event: the scheduler refused it, or the state has no room for it.

use clade_core::schedule::Refusal;
use clade_proto::v1;
use tonic::Status;

use crate::outside;
use crate::state::{MOST_BYTES, Write};

/// Whatever it is, nothing has changed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("`{key}` would take {bytes} bytes, and at most {MOST_BYTES} can be kept: say less")]
    TooLarge { key: String, bytes: usize },
}

impl NotTaken {
    /// Set if one of these rows is too large for any transaction.
    pub(super) fn too_large(writes: &[Write]) -> Option<Self> {
        let large = writes.iter().find(|write| write.bytes() > MOST_BYTES)?;
        Some(Self::TooLarge { key: large.key().to_owned(), bytes: large.bytes() })
    }

    /// As a worker is told.
    pub(crate) const fn reason(&self) -> v1::RefusalReason {
        match self {
            Self::Refused(why) => outside::refusal_reason(why),
            Self::TooLarge { .. } => v1::RefusalReason::Malformed,
        }
    }

    /// As an operator is told.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Refused(why) => outside::refused(why),
            Self::TooLarge { .. } => Status::invalid_argument(self.to_string()),
        }
    }
}
