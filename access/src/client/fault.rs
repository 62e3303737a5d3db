//! What kind of failure a call met.

use std::error::Error;
use std::io;
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

/// Why it failed, as far as it tells what to do next; of several, the last tells most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nobody answers there.
    Unreachable,
    /// It took the call and did not answer in time.
    NoAnswer,
    /// The two do not agree on TLS: whom to trust, or whether to speak it.
    Tls,
    /// Who answers does not lead, or is about to stop.
    NotLeading,
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
        if causes().any(is_broken_off) {
            return Self::Unreachable;
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

/// An I/O error hides its cause from `source` when it wraps one; HTTP/2 leaves only its text.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let Some(io) = error.downcast_ref::<io::Error>() else { return error.is::<rustls::Error>() };
    let is_alert = || {
        let text = io.to_string();
        ["received fatal alert", "invalid peer certificate"].iter().any(|it| text.starts_with(it))
    };
    io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
        || (io.kind() == io::ErrorKind::InvalidData && is_alert())
}

/// The other side went away in the middle: it died, or its machine did.
fn is_broken_off(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof];
    error.downcast_ref::<io::Error>().is_some_and(|io| kinds.contains(&io.kind()))
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
