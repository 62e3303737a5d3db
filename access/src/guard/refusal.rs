//! Why a request is refused, in words, as a gRPC status, and as a closed set to count by.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::{Code, Status};

use crate::{CertificateError, Role};

/// Why a request is refused: what, why, what next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this coordinator serves nobody unknown: send `authorization: Bearer TOKEN`, or a certificate \
         that its --client-ca has signed"
    )]
    NoIdentity,

    #[error("the authorization sent is not one `Bearer TOKEN`")]
    BadHeader,

    #[error(
        "this token is not known here: it is mistyped or was withdrawn; an administrator makes a new \
         one with `clade token new`"
    )]
    UnknownToken,

    #[error(
        "the token of {name} expired at {end}; an administrator makes a new one with `clade token new`"
    )]
    ExpiredToken { name: String, end: String },

    #[error("the certificate of {name} expired at {end}; renew it")]
    ExpiredCertificate { name: String, end: String },

    #[error("the certificate names nobody known here: {0}")]
    Certificate(CertificateError),

    #[error("the token was withdrawn; an administrator makes a new one with `clade token new`")]
    Withdrawn,

    #[error("{rpc} takes the role {least}, and {name} has the role {role}")]
    TooWeak { name: String, role: Role, rpc: String, least: Role },

    #[error("this coordinator does not know {path}, so nobody may call it")]
    UnknownRpc { path: String },

    #[error(
        "too many wrong or missing tokens came from this address: put them right, and wait 10 s"
    )]
    TooManyFailures,
}

/// A [`Refusal`] without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    NoIdentity,
    BadHeader,
    UnknownToken,
    ExpiredToken,
    ExpiredCertificate,
    Certificate,
    Withdrawn,
    TooWeak,
    UnknownRpc,
    TooManyFailures,
}

impl Refusal {
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoIdentity => Reason::NoIdentity,
            Self::BadHeader => Reason::BadHeader,
            Self::UnknownToken => Reason::UnknownToken,
            Self::ExpiredToken { .. } => Reason::ExpiredToken,
            Self::ExpiredCertificate { .. } => Reason::ExpiredCertificate,
            Self::Certificate(_) => Reason::Certificate,
            Self::Withdrawn => Reason::Withdrawn,
            Self::TooWeak { .. } => Reason::TooWeak,
            Self::UnknownRpc { .. } => Reason::UnknownRpc,
            Self::TooManyFailures => Reason::TooManyFailures,
        }
    }

    pub(crate) fn status(&self) -> Status {
        let code = match self {
            Self::NoIdentity
            | Self::BadHeader
            | Self::UnknownToken
            | Self::ExpiredToken { .. }
            | Self::ExpiredCertificate { .. }
            | Self::Certificate(_)
            | Self::Withdrawn => Code::Unauthenticated,
            Self::TooWeak { .. } => Code::PermissionDenied,
            Self::UnknownRpc { .. } => Code::Unimplemented,
            Self::TooManyFailures => Code::ResourceExhausted,
        };
        Status::new(code, self.to_string())
    }
}

impl Reason {
    pub const ALL: [Self; 10] = [
        Self::NoIdentity,
        Self::BadHeader,
        Self::UnknownToken,
        Self::ExpiredToken,
        Self::ExpiredCertificate,
        Self::Certificate,
        Self::Withdrawn,
        Self::TooWeak,
        Self::UnknownRpc,
        Self::TooManyFailures,
    ];

    /// For the label of a metric.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoIdentity => "no_identity",
            Self::BadHeader => "bad_header",
            Self::UnknownToken => "unknown_token",
            Self::ExpiredToken => "expired_token",
            Self::ExpiredCertificate => "expired_certificate",
            Self::Certificate => "certificate_without_role",
            Self::Withdrawn => "withdrawn",
            Self::TooWeak => "too_weak",
            Self::UnknownRpc => "unknown_rpc",
            Self::TooManyFailures => "too_many_failures",
        }
    }
}

/// One counter per reason, in the order of [`Reason::ALL`].
#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; Reason::ALL.len()]);

impl Counters {
    pub(super) fn count(&self, reason: Reason) {
        for (counted, counter) in Reason::ALL.iter().zip(&self.0) {
            if *counted == reason {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn all(&self) -> Vec<(Reason, u64)> {
        let counts = self.0.iter().map(|counter| counter.load(Ordering::Relaxed));
        Reason::ALL.into_iter().zip(counts).collect()
    }
}
