//! What an error of the backend says: whether to try again, and in which words it was refused.
//!
//! `object_store` keeps the status and the body of an answer in its error's text and nowhere else
//! that can be reached from here, so the text is read. The suite of faults in
//! `conformance` holds this to what servers really send.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Trying again would end the same way.
    Final,
    /// Trying again may help. The request may have been carried out all the same, unless it never
    /// reached the server.
    Again { reached: bool },
}

/// Codes of answers that ask for another try whatever their status.
const BUSY: [&str; 8] = [
    "InternalError",
    "SlowDown",
    "ServiceUnavailable",
    "ServerBusy",
    "RequestTimeout",
    "OperationTimedOut",
    "OperationAborted",
    "ConditionalRequestConflict",
];

/// Codes of answers that find fault with the credentials whatever their status.
const REFUSED: [&str; 11] = [
    "AccessDenied",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "AuthorizationPermissionMismatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidIdentityToken",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
];

/// Codes of answers that say that the bucket is not there.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "InvalidBucketName"];

/// Codes of answers that send us to another region.
const ELSEWHERE: [&str; 4] = [
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
];

/// An answer as far as an error tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// The answer to HEAD has no body. Those with this status are about expired credentials.
    is_bare_400: bool,
}

impl Answer {
    pub(crate) fn of(error: &Error) -> Self {
        let text = error.to_string();
        let status = between(&text, "non-2xx status code: ", ' ')
            .and_then(|number| number.trim_end_matches(':').parse().ok());
        let code = element(&text, "Code").or_else(|| between(&text, "(code: ", ')'));
        let is_bare_400 = status == Some(400) && text.contains("performing HEAD");
        Self { status, code, message: element(&text, "Message"), is_bare_400 }
    }

    fn is_one_of(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    pub(crate) fn refuses_credentials(&self) -> bool {
        self.is_one_of(&REFUSED) || matches!(self.status, Some(401 | 403)) || self.is_bare_400
    }

    pub(crate) fn misses_bucket(&self) -> bool {
        self.is_one_of(&NO_BUCKET)
    }

    pub(crate) fn points_elsewhere(&self) -> bool {
        self.is_one_of(&ELSEWHERE)
    }

    /// The server's own words.
    pub(crate) fn words(&self) -> Option<String> {
        match (&self.code, &self.message, self.status) {
            (Some(code), Some(message), _) => {
                Some(format!("{code}: {}", message.trim_end_matches('.')))
            }
            (Some(code), None, _) => Some(code.clone()),
            (None, _, Some(status)) => Some(format!("status {status}")),
            (None, _, None) => None,
        }
    }
}

fn element(text: &str, name: &str) -> Option<String> {
    between(text, &format!("<{name}>"), '<')
}

fn between(text: &str, before: &str, after: char) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let found = rest.split(after).next().unwrap_or(rest).trim();
    (!found.is_empty()).then(|| found.to_owned())
}

/// Judges an error of the backend.
pub(crate) fn judge(error: &Error) -> Verdict {
    // The backend's list of errors is open: what is not named here is judged by its text.
    if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) {
        return Verdict::Final;
    }
    let answer = Answer::of(error);
    if answer.is_one_of(&BUSY) {
        return Verdict::Again { reached: true };
    }
    match answer.status {
        // Not implemented, and not in this version of HTTP.
        Some(501 | 505) => Verdict::Final,
        Some(408 | 429 | 500..) => Verdict::Again { reached: true },
        Some(_) => Verdict::Final,
        None => match transport(error) {
            Some(HttpErrorKind::Connect) => Verdict::Again { reached: false },
            Some(_) => Verdict::Again { reached: true },
            None => Verdict::Final,
        },
    }
}

/// The fault of the connection that lies at the bottom of `error`, if one does.
fn transport(error: &Error) -> Option<HttpErrorKind> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        next = error.source();
    }
    None
}

/// Whether an object is not there, though its bucket is.
pub(crate) fn is_missing_object(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && !Answer::of(error).misses_bucket()
}

/// Whether a range was refused because the object ends before it.
pub(crate) fn is_beyond_end(error: &Error) -> bool {
    if Answer::of(error).status == Some(416) {
        return true;
    }
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if error.to_string().contains("but object was only") {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    fn answered(status: &str, code: &str) -> Error {
        generic(&format!(
            "Error performing PUT http://h/b/k in 3ms - Server returned non-2xx status code: \
             {status}: <?xml?><Error><Code>{code}</Code><Message>Why it is so</Message></Error>"
        ))
    }

    #[test]
    fn status_code_and_message_are_read_from_an_error() {
        let answer = Answer::of(&answered("403 Forbidden", "SignatureDoesNotMatch"));
        assert_eq!(answer.status, Some(403));
        assert_eq!(answer.words().unwrap(), "SignatureDoesNotMatch: Why it is so");
        assert_eq!(Answer::of(&generic("nothing to see")), Answer::default());
        let bulk =
            Answer::of(&generic("DeleteObjects request failed for key k: No (code: AccessDenied)"));
        assert!(bulk.refuses_credentials());
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, code, expected) in [
            ("503 Service Unavailable", "SlowDown", Verdict::Again { reached: true }),
            ("500 Internal Server Error", "InternalError", Verdict::Again { reached: true }),
            ("400 Bad Request", "RequestTimeout", Verdict::Again { reached: true }),
            ("409 Conflict", "ConditionalRequestConflict", Verdict::Again { reached: true }),
            ("429 Too Many Requests", "", Verdict::Again { reached: true }),
            ("501 Not Implemented", "NotImplemented", Verdict::Final),
            ("400 Bad Request", "ExpiredToken", Verdict::Final),
            ("403 Forbidden", "AccessDenied", Verdict::Final),
            ("404 Not Found", "NoSuchBucket", Verdict::Final),
        ] {
            assert_eq!(judge(&answered(status, code)), expected, "{status} {code}");
        }
        assert_eq!(judge(&generic("no HTTP in sight")), Verdict::Final);
        for (kind, reached) in [(HttpErrorKind::Connect, false), (HttpErrorKind::Timeout, true)] {
            let source = Box::new(HttpError::new(kind, std::fmt::Error));
            let error = Error::Generic { store: "S3", source };
            assert_eq!(judge(&error), Verdict::Again { reached });
        }
    }
}
