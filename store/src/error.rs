//! What can go wrong with the store, and what that means for the work that asked.

use std::error::Error;
use std::io;

use clade_core::ids::Digest;
use clade_core::job::Failure;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store address `{uri}` is not supported yet; write `file:///` and an absolute path")]
    Unsupported { uri: String },

    #[error("nothing is stored at `{key}`")]
    NotFound { key: String },

    #[error("`{key}` already exists and is never overwritten")]
    AlreadyExists { key: String },

    #[error("`{key}` is damaged: its digest is {found} but should be {expected}")]
    Damaged { key: String, expected: Digest, found: Digest },

    #[error("`{key}` is not what it should be: {reason}")]
    Malformed { key: String, reason: String },

    #[error(
        "no space left to write `{key}`; free some disk space and start again: nothing is lost"
    )]
    Full { key: String },

    #[error("cannot reach `{key}` in the store: {source}")]
    Io {
        key: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Names the key for an error of the backend, and tells a full disk from the rest.
    pub(crate) fn new(key: &str, source: object_store::Error) -> Self {
        let key = key.to_owned();
        if is_full(&source) {
            return Self::Full { key };
        }
        // The backend's list of errors is open: all but two are for people to read.
        if matches!(source, object_store::Error::NotFound { .. }) {
            Self::NotFound { key }
        } else if matches!(source, object_store::Error::AlreadyExists { .. }) {
            Self::AlreadyExists { key }
        } else {
            Self::Io { key, source: Box::new(source) }
        }
    }

    /// The same for an error of the operating system on the file `name`.
    pub fn from_io(name: impl Into<String>, source: io::Error) -> Self {
        let key = name.into();
        if is_full(&source) {
            return Self::Full { key };
        }
        if source.kind() == io::ErrorKind::NotFound {
            Self::NotFound { key }
        } else {
            Self::Io { key, source: Box::new(source) }
        }
    }

    /// Whether the artefact itself is at fault, so that an older one may serve instead.
    pub const fn is_bad_artefact(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::Damaged { .. } | Self::Malformed { .. } => true,
            Self::Unsupported { .. }
            | Self::AlreadyExists { .. }
            | Self::Full { .. }
            | Self::Io { .. } => false,
        }
    }
}

/// Whether a full disk or a used-up quota lies at the bottom of `error`.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Unsupported { .. } => Self::Config { message },
            StoreError::NotFound { .. }
            | StoreError::AlreadyExists { .. }
            | StoreError::Damaged { .. }
            | StoreError::Malformed { .. }
            | StoreError::Full { .. }
            | StoreError::Io { .. } => Self::Storage { message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures_however_deep_it_lies() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let wrapped = object_store::Error::Generic { store: "x", source: Box::new(full()) };
        let error = StoreError::new("a/b", wrapped);
        assert!(matches!(&error, StoreError::Full { key } if key == "a/b"), "{error}");
        assert!(error.to_string().starts_with("no space left to write `a/b`"));

        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        let wrapped = object_store::Error::Generic { store: "x", source: Box::new(other) };
        assert!(matches!(StoreError::new("a/b", wrapped), StoreError::Io { .. }));
        assert!(matches!(StoreError::from_io("f", full()), StoreError::Full { .. }));
    }

    #[test]
    fn every_failure_of_the_store_may_be_tried_again_except_a_wrong_address() {
        let damaged = StoreError::Damaged {
            key: "k".into(),
            expected: Digest([0; 32]),
            found: Digest([1; 32]),
        };
        assert!(Failure::from(damaged).may_retry());
        let wrong = StoreError::Unsupported { uri: "s3://b".into() };
        assert!(!Failure::from(wrong).may_retry());
    }
}
