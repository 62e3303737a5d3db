//! What can go wrong with the store, and what that means for the work that asked.

use std::error::Error;
use std::io;

use clade_core::ids::Digest;
use clade_core::job::Failure;

use crate::answer::Answer;
use crate::backend::Place;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "store address `{uri}` is not supported; write `file:///` and an absolute path, \
         `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`"
    )]
    Unsupported { uri: String },

    /// The credentials are missing, wrong, or may not do this.
    #[error("`{uri}` refused `{key}`: {reason}")]
    Denied {
        uri: String,
        key: String,
        /// What the other side said, or what was looked for and not found; and what to look at.
        reason: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    /// The address is understood, but what it leads to cannot serve.
    #[error("store `{uri}` cannot be used: {reason}")]
    Unusable { uri: String, reason: String },

    #[error("nothing is stored at `{key}`")]
    NotFound { key: String },

    #[error("`{key}` already exists and is never overwritten")]
    AlreadyExists { key: String },

    #[error(
        "`{key}` was replaced while it was read (noticed at byte {offset}); objects that are read \
         must stay as they are: start again"
    )]
    Changed { key: String, offset: u64 },

    #[error("`{key}` is no longer the version that was to be updated")]
    Conflict { key: String },

    #[error("`{key}` is damaged: its digest is {found} but should be {expected}")]
    Damaged { key: String, expected: Digest, found: Digest },

    #[error("`{key}` is not what it should be: {reason}")]
    Malformed { key: String, reason: String },

    #[error(
        "no space left to write `{key}`; free some disk space and start again: nothing is lost"
    )]
    Full { key: String },

    #[error("cannot reach `{key}` in the store: {source}{}", root_cause(source.as_ref()))]
    Io {
        key: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Names the key for an error of the backend, and tells a full disk, refused credentials and
    /// a missing bucket from the rest.
    pub(crate) fn new(place: &Place, key: &str, source: object_store::Error) -> Self {
        let key = key.to_owned();
        if is_full(&source) {
            return Self::Full { key };
        }
        let uri = place.uri.to_string();
        let answer = Answer::of(&source);
        // The backend's list of errors is open: what is not named here is for people to read.
        if matches!(source, object_store::Error::Unauthenticated { .. })
            || matches!(source, object_store::Error::PermissionDenied { .. })
            || answer.refuses_credentials()
        {
            let said = answer.words().unwrap_or_else(|| bottom(&source).to_string());
            let reason = format!("{said}; {}", place.kind.how_to_be_let_in(&answer));
            Self::Denied { uri, key, reason, source: Box::new(source) }
        } else if answer.misses_bucket() {
            let reason =
                format!("there is no such bucket ({})", answer.words().unwrap_or_default());
            Self::Unusable { uri, reason: format!("{reason}; create it, or correct the address") }
        } else if answer.points_elsewhere() || source.to_string().contains("without LOCATION") {
            let reason = answer.words().unwrap_or_else(|| "it lies in another region".to_owned());
            Self::Unusable {
                uri,
                reason: format!("{reason}; set AWS_REGION to the bucket's region"),
            }
        } else if matches!(source, object_store::Error::NotFound { .. }) {
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
            | Self::Denied { .. }
            | Self::Unusable { .. }
            | Self::AlreadyExists { .. }
            | Self::Changed { .. }
            | Self::Conflict { .. }
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

/// The error below all others.
fn bottom<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last
}

/// The error below all others in brackets, unless the top one tells it already.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let cause = bottom(error).to_string();
    if error.to_string().contains(&cause) { String::new() } else { format!(" ({cause})") }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Unsupported { .. }
            | StoreError::Denied { .. }
            | StoreError::Unusable { .. } => Self::Config { message },
            StoreError::NotFound { .. }
            | StoreError::AlreadyExists { .. }
            | StoreError::Changed { .. }
            | StoreError::Conflict { .. }
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
        let place = Place::memory();
        let error = StoreError::new(&place, "a/b", wrapped);
        assert!(matches!(&error, StoreError::Full { key } if key == "a/b"), "{error}");
        assert!(error.to_string().starts_with("no space left to write `a/b`"));

        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        let wrapped = object_store::Error::Generic { store: "x", source: Box::new(other) };
        assert!(matches!(StoreError::new(&place, "a/b", wrapped), StoreError::Io { .. }));
        assert!(matches!(StoreError::from_io("f", full()), StoreError::Full { .. }));
    }

    #[test]
    fn every_failure_of_the_store_may_be_tried_again_except_what_only_people_can_mend() {
        let damaged = StoreError::Damaged {
            key: "k".into(),
            expected: Digest([0; 32]),
            found: Digest([1; 32]),
        };
        assert!(Failure::from(damaged).may_retry());
        let wrong = StoreError::Unsupported { uri: "ftp://b".into() };
        assert!(!Failure::from(wrong).may_retry());
        let forbidden =
            object_store::Error::Unauthenticated { path: "k".into(), source: "no".into() };
        let denied = StoreError::new(&Place::memory(), "k", forbidden);
        assert!(matches!(denied, StoreError::Denied { .. }));
        assert!(!Failure::from(denied).may_retry());
    }
}
