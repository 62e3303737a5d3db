//! What a failed call means to the person who made it.

use clade_access::client::{CallFailed, ConnectError, Fault};
use tonic::{Code, Status};

/// Why the coordinator did not do what was asked: what, why, what next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// What the flags say about the connection cannot be done; the sentence says why.
    #[error("{0}")]
    BadConnection(String),

    #[error(
        "no coordinator answers at {url}: start one with `clade up`, or name another with \
         --coordinator"
    )]
    NoCoordinator { url: String },

    #[error(
        "of the coordinators at {url} none leads now: {message}; they choose a leader within seconds, \
         so try again"
    )]
    NoLeader { url: String, message: String },

    #[error(
        "no secure connection to {url}: {why}; --ca names who signed the coordinator's certificate, \
         --cert and --key say who you are"
    )]
    Tls { url: String, why: String },

    #[error(
        "the coordinator at {url} took the call but gave no answer in time: it may be stuck or \
         overloaded; look at its log and try again"
    )]
    NoAnswer { url: String },

    /// The coordinator understood, and its sentence says why not.
    #[error("{message}{hint}")]
    Refused { message: String, hint: &'static str },

    #[error("the coordinator at {url} failed: {message}; its log says more")]
    Failed { url: String, message: String },

    #[error(
        "what answers at {url} does not know this request: is it a coordinator, and of the same \
         version as this `clade`? ({message})"
    )]
    Foreign { url: String, message: String },
}

impl CallError {
    /// `urls` are all that were to be asked.
    pub(super) fn new(urls: &str, failed: &CallFailed) -> Self {
        let url = failed.url().to_owned();
        match failed.fault() {
            Fault::Unreachable => Self::NoCoordinator { url: urls.to_owned() },
            Fault::NotLeading => Self::NoLeader { url: urls.to_owned(), message: failed.explain() },
            Fault::NoAnswer => Self::NoAnswer { url },
            Fault::Tls => Self::Tls { url, why: failed.explain() },
            Fault::Refused => Self::refused(url, failed.status()),
        }
    }

    fn refused(url: String, status: &Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated => Self::Refused {
                message,
                hint: "; say who you are: set CLADE_TOKEN, or give --token-file, or --cert and --key",
            },
            Code::NotFound => Self::Refused { message, hint: "; `clade status` lists the runs" },
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::Aborted
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::PermissionDenied => Self::Refused { message, hint: "" },
            Code::Unimplemented => Self::Foreign { url, message },
            // A server that does not speak HTTP/2 ends here too.
            Code::Unknown if status.metadata().is_empty() && is_transport(status) => {
                Self::Foreign { url, message }
            }
            // The first three never come here: they are faults of their own.
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::DataLoss
            | Code::Ok => Self::Failed { url, message },
        }
    }

    /// Whether the same call may succeed once the coordinator is back.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            Self::NoCoordinator { .. } | Self::NoLeader { .. } | Self::NoAnswer { .. } => true,
            Self::BadConnection(_)
            | Self::Tls { .. }
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::Foreign { .. } => false,
        }
    }
}

impl From<ConnectError> for CallError {
    fn from(error: ConnectError) -> Self {
        Self::BadConnection(error.to_string())
    }
}

fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|source| source.is::<tonic::transport::Error>())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn check(code: Code, message: &str, expected: expect_test::Expect) {
        let url = "http://127.0.0.1:7600";
        let error = CallError::new(url, &CallFailed::new(url, Status::new(code, message)));
        expected.assert_eq(&error.to_string());
    }

    #[test]
    fn an_error_says_what_went_wrong_and_what_to_do_next() {
        check(
            Code::Unavailable,
            "another one leads",
            expect![
                "of the coordinators at http://127.0.0.1:7600 none leads now: another one leads; they choose a leader within seconds, so try again"
            ],
        );
        check(
            Code::NotFound,
            "no run `clipard`",
            expect!["no run `clipard`; `clade status` lists the runs"],
        );
        check(
            Code::FailedPrecondition,
            "run `clipart` has not finished",
            expect!["run `clipart` has not finished"],
        );
        check(
            Code::Unauthenticated,
            "this coordinator asks who you are",
            expect![
                "this coordinator asks who you are; say who you are: set CLADE_TOKEN, or give --token-file, or --cert and --key"
            ],
        );
        check(
            Code::Cancelled,
            "Timeout expired",
            expect![
                "the coordinator at http://127.0.0.1:7600 took the call but gave no answer in time: it may be stuck or overloaded; look at its log and try again"
            ],
        );
    }
}
