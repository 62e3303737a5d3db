//! Why etcd gave no answer, and whether anybody but people can mend that.

use std::error::Error as _;
use std::time::Duration;

use etcd_client::Error;
use tonic::Code;

/// What went wrong with one request to one member.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{url} did not answer within {after:?}")]
    Silent { url: String, after: Duration },
    /// The connection failed, or etcd said that it could not do it now. Whether the request took
    /// effect is not known.
    #[error("{url}: {reason}")]
    Unavailable { url: String, reason: String },
    /// Etcd is out of space: nothing took effect.
    #[error("{url}: {reason}: compact and defragment etcd, raise its quota, then disarm its alarm")]
    Full { url: String, reason: String },
    /// Wrong certificates, user or password, or a request that etcd will never take.
    #[error("{url}: {reason}")]
    Refused { url: String, reason: String },
}

impl Trouble {
    pub(super) fn new(url: &str, error: &Error) -> Self {
        let url = url.to_owned();
        let reason = told(error);
        // A failed handshake is told as a failed connection; only its text tells them apart.
        let is_handshake =
            ["invalid peer certificate", "fatal alert", "corrupt message", "UnknownIssuer"]
                .iter()
                .any(|mark| reason.contains(mark));
        if is_handshake {
            let reason = format!("{reason}: check --etcd-ca, --etcd-cert, --etcd-key and the URLs");
            return Self::Refused { url, reason };
        }
        let Error::GRpcStatus(status) = error else {
            return Self::Unavailable { url, reason };
        };
        let with = |advice: &str| format!("{}: {advice}", status.message());
        match status.code() {
            Code::ResourceExhausted if reason.contains("space") => {
                Self::Full { url, reason: status.message().to_owned() }
            }
            Code::PermissionDenied => {
                let reason = with("give --etcd-user a role that may read and write the prefix");
                Self::Refused { url, reason }
            }
            Code::FailedPrecondition if reason.contains("authentication is not enabled") => {
                Self::Refused { url, reason: with("leave out --etcd-user") }
            }
            Code::InvalidArgument if reason.contains("authentication failed") => {
                Self::Refused { url, reason: with("correct --etcd-user or --etcd-password-file") }
            }
            Code::InvalidArgument if reason.contains("user name is empty") => {
                Self::Refused { url, reason: with("etcd asks for --etcd-user") }
            }
            Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
                Self::Refused { url, reason: status.message().to_owned() }
            }
            // Tokens expire, and every member may be asked for a new one.
            Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Self::Unavailable { url, reason },
        }
    }

    /// Whether the same request will fare no better until somebody changes something.
    pub(super) const fn is_for_people(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Silent { .. } | Self::Unavailable { .. } | Self::Full { .. } => false,
        }
    }
}

/// An error with all its causes: the transport's own words say only "transport error".
fn told(error: &Error) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    if let Error::GRpcStatus(status) = error {
        status.message().clone_into(&mut reason);
        cause = status.source();
    } else if let Error::TransportError(error) = error {
        cause = error.source();
    }
    while let Some(next) = cause {
        let text = next.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = next.source();
    }
    reason
}
