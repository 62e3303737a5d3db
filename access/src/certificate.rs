//! What a verified client certificate says about its bearer.
//!
//! It does not verify: the TLS handshake has, against `--client-ca`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use crate::Role;
use crate::identity::{Identity, Proof};

/// What the subject's organization begins with, before the role.
pub(crate) const ORGANIZATION: &str = "clade:";

/// The organizational unit of a worker's certificate that is shared by several nodes.
const ANY_NODE: &str = "clade:any-node";

/// Why a certificate that is genuine names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("it cannot be read")]
    Unreadable,

    #[error("its subject must have exactly one organization `clade:ROLE` and one common name")]
    NoRole,

    #[error("{0}")]
    Wrong(String),
}

/// The bearer: role by the subject's organization, name by its common name.
pub(crate) fn bearer(der: &[u8]) -> Result<Identity, CertificateError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertificateError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CertificateError::Unreadable);
    }
    let subject = certificate.subject();
    let roles = subject
        .iter_organization()
        .filter_map(text)
        .filter_map(|organization| organization.strip_prefix(ORGANIZATION).map(str::to_owned));
    let role = only(roles).ok_or(CertificateError::NoRole)?;
    let name = only(subject.iter_common_name().filter_map(text)).ok_or(CertificateError::NoRole)?;
    let role: Role = role.parse().map_err(|error: crate::NoRole| wrong(&error))?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    let ends: Option<SystemTime> = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let identity = Identity::new(name, role, Proof::Certificate, ends);
    let identity = identity.map_err(|error| wrong(&error))?;
    let mut units = subject.iter_organizational_unit().filter_map(text);
    Ok(if units.any(|unit| unit == ANY_NODE) { identity.with_any_node() } else { identity })
}

fn wrong(error: &dyn std::error::Error) -> CertificateError {
    CertificateError::Wrong(error.to_string())
}

fn text<'a>(attribute: &'a AttributeTypeAndValue<'_>) -> Option<&'a str> {
    attribute.as_str().ok()
}

/// Two answers are none: whoever made the certificate may have meant either.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}
