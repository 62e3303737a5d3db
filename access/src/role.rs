//! What a caller may be.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Each role of people includes the one before it; a worker is none of them, and they no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Starts and stops runs, anybody's.
    Operator,
    /// Takes nodes out of service and back.
    Admin,
    /// Does the work.
    Worker,
}

/// A word that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: there are viewer, operator, admin and worker")]
pub struct NoRole(String);

impl Role {
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Admin, Self::Worker];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Worker => "worker",
        }
    }

    /// Whether who is this may do what takes at least `least`.
    pub const fn includes(self, least: Self) -> bool {
        match (self, least) {
            (Self::Viewer, Self::Viewer)
            | (Self::Operator, Self::Viewer | Self::Operator)
            | (Self::Admin, Self::Viewer | Self::Operator | Self::Admin)
            | (Self::Worker, Self::Worker) => true,
            (Self::Viewer, Self::Operator | Self::Admin | Self::Worker)
            | (Self::Operator, Self::Admin | Self::Worker)
            | (Self::Admin, Self::Worker)
            | (Self::Worker, Self::Viewer | Self::Operator | Self::Admin) => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|it| it.word() == text).ok_or_else(|| NoRole(text.to_owned()))
    }
}
