//! One entry of a token file.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::{Token, TokenDigest};
use crate::Role;
use crate::identity::{BadName, Identity, Proof, check_name};

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Never,
    At(SystemTime),
}

impl Expiry {
    /// `90d` from `now` on, or `never`.
    pub fn after(text: &str, now: SystemTime) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}; write a time such as 90d or 12h, or never");
        if text == "never" {
            return Ok(Self::Never);
        }
        let time = humantime::parse_duration(text).map_err(|error| wrong(&error.to_string()))?;
        // Whole seconds, as the file has them.
        let whole = Duration::from_secs(time.as_secs());
        let end = now.checked_add(whole).filter(|_| time >= Duration::from_secs(1));
        let limit = now + Duration::from_secs(100 * 366 * 86_400);
        end.filter(|end| *end <= limit).map(Self::At).ok_or_else(|| wrong("that is no useful time"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let time = humantime::parse_rfc3339(text)
            .map_err(|error| format!("{error}: write 2027-01-31T00:00:00Z, or never"))?;
        Ok(Self::At(time))
    }

    const fn at(self) -> Option<SystemTime> {
        match self {
            Self::Never => None,
            Self::At(time) => Some(time),
        }
    }
}

/// An identity and the digest of the token that proves it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) identity: Identity,
    pub(super) digest: TokenDigest,
}

/// As it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntry {
    name: String,
    role: Role,
    sha256: String,
    expires: String,
    #[serde(default)]
    nodes: Nodes,
}

/// Which nodes a worker's identity may claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Nodes {
    /// Those that are named as it is.
    #[default]
    Own,
    Any,
}

impl Entry {
    /// The entry for a new token.
    pub fn new(token: &Token, name: &str, role: Role, expiry: Expiry) -> Result<Self, BadName> {
        check_name(name, role)?;
        let digest = token.digest();
        let identity = Identity::new(name, role, Proof::Token(digest), expiry.at())?;
        Ok(Self { identity, digest })
    }

    /// As lines of a token file.
    pub fn to_yaml(&self) -> String {
        let Self { identity, digest } = self;
        let expires = match identity.ends {
            Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
            None => "never".to_owned(),
        };
        let (name, role) = (identity.name(), identity.role());
        let nodes = if identity.has_any_node() { "  nodes: any\n" } else { "" };
        format!(
            "- name: \"{name}\"\n  role: {role}\n  sha256: {digest}\n  expires: {expires}\n{nodes}"
        )
    }
}

impl TryFrom<RawEntry> for Entry {
    type Error = String;

    fn try_from(raw: RawEntry) -> Result<Self, String> {
        let RawEntry { name, role, sha256, expires, nodes } = raw;
        let digest = TokenDigest::parse(&sha256)
            .ok_or_else(|| format!("sha256 of {name} is not 64 hexadecimal digits"))?;
        let expiry = Expiry::parse(&expires).map_err(|why| format!("expires of {name}: {why}"))?;
        let identity = Identity::new(&name, role, Proof::Token(digest), expiry.at());
        let identity = identity.map_err(|error| error.to_string())?;
        let identity = match nodes {
            Nodes::Own => identity,
            Nodes::Any if role == Role::Worker => identity.with_any_node(),
            Nodes::Any => return Err(format!("nodes of {name}: only a worker is on a node")),
        };
        Ok(Self { identity, digest })
    }
}
