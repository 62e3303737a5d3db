//! What kind of failure a call met.

use std::error::Error;
use std::iter::successors;

use tokio_rustls::rustls;
use tonic::{Code, Status};

/// A call that failed, and at whom.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {}", self.explain())]
pub struct CallFailed {
    url: String,
    status: Box<Status>,
    fault: Fault,
}

/// Why it failed, as far as it tells what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers there.
    Unreachable,
    /// Who answers does not lead, or is about to stop.
    NotLeading,
    /// It took the call and did not answer in time.
    NoAnswer,
    /// The two do not agree on TLS: whom to trust, or whether to speak it.
    Tls,
    /// It understood, and its sentence says why not.
    Refused,
}

impl CallFailed {
    pub fn new(url: &str, status: Status) -> Self {
        let fault = Fault::of(&status);
        Self { url: url.to_owned(), status: Box::new(status), fault }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    pub const fn fault(&self) -> Fault {
        self.fault
    }

    /// The failure with all of its causes: tonic's own text says only "transport error".
    pub fn explain(&self) -> String {
        match self.status.source() {
            Some(source) => chain(source),
            None => self.status.message().to_owned(),
        }
    }
}

impl Fault {
    fn of(status: &Status) -> Self {
        let causes = || successors(status.source(), |&error| error.source());
        // Only what this process made has a cause; what came over the wire has none.
        if causes().any(is_tls) {
            return Self::Tls;
        }
        match status.code() {
            Code::Unavailable if status.source().is_some() => Self::Unreachable,
            Code::Unavailable => Self::NotLeading,
            // The client's own deadline arrives as `Cancelled`.
            Code::DeadlineExceeded | Code::Cancelled => Self::NoAnswer,
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::Refused,
        }
    }

    /// Whether another coordinator may do what this one did not.
    pub(super) const fn may_lie_elsewhere(self) -> bool {
        match self {
            Self::Unreachable | Self::NotLeading | Self::NoAnswer | Self::Tls => true,
            Self::Refused => false,
        }
    }

    /// Whether the same call may succeed later.
    pub const fn may_pass(self) -> bool {
        match self {
            Self::Unreachable | Self::NotLeading | Self::NoAnswer => true,
            Self::Tls | Self::Refused => false,
        }
    }
}

/// An I/O error hides its cause from `source` when it wraps one.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || wrapped.is_some_and(|inner| inner.is::<rustls::Error>())
}

/// An error with all of its causes, each once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in successors(Some(error), |&error| error.source()) {
        let text = cause.to_string();
        if told.last() != Some(&text) {
            told.push(text);
        }
    }
    told.join(": ")
}
