//! What a failed call means to the person who made it.

use tonic::{Code, Status};

/// Why the coordinator did not do what was asked: what, why, what next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("`{url}` is no coordinator's address: {why}; write --coordinator http://HOST:PORT")]
    BadAddress { url: String, why: String },

    #[error(
        "no coordinator answers at {url}: start one with `clade up`, or name another with \
         --coordinator"
    )]
    NoCoordinator { url: String },

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
    pub(super) fn new(url: &str, status: &Status) -> Self {
        let url = url.to_owned();
        let message = status.message().to_owned();
        match status.code() {
            Code::Unavailable => Self::NoCoordinator { url },
            // The client's own deadline arrives as `Cancelled`.
            Code::DeadlineExceeded | Code::Cancelled => Self::NoAnswer { url },
            Code::NotFound => Self::Refused { message, hint: "; `clade status` lists the runs" },
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::Aborted
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated => Self::Refused { message, hint: "" },
            Code::Unimplemented => Self::Foreign { url, message },
            // A server that does not speak HTTP/2 ends here too.
            Code::Unknown if status.metadata().is_empty() && is_transport(status) => {
                Self::Foreign { url, message }
            }
            Code::Unknown | Code::Internal | Code::DataLoss | Code::Ok => {
                Self::Failed { url, message }
            }
        }
    }

    /// Whether the same call may succeed once the coordinator is back.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            Self::NoCoordinator { .. } | Self::NoAnswer { .. } => true,
            Self::BadAddress { .. }
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::Foreign { .. } => false,
        }
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
        let error = CallError::new("http://127.0.0.1:7600", &Status::new(code, message));
        expected.assert_eq(&error.to_string());
    }

    #[test]
    fn an_error_says_what_went_wrong_and_what_to_do_next() {
        check(
            Code::Unavailable,
            "tcp connect error",
            expect![
                "no coordinator answers at http://127.0.0.1:7600: start one with `clade up`, or name another with --coordinator"
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
            Code::Cancelled,
            "Timeout expired",
            expect![
                "the coordinator at http://127.0.0.1:7600 took the call but gave no answer in time: it may be stuck or overloaded; look at its log and try again"
            ],
        );
    }
}
