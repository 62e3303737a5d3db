//! Whether this process should be restarted (`/healthz`) and whether it should be asked
//! (`/readyz`).
//!
//! A standby that cannot reach the state store is not restarted, since a new one could not
//! either; it is not asked. A leader whose loop stands still is restarted, so that another leads.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A leader whose loop has not come around for this long stands still.
const STILL: Duration = Duration::from_secs(10);

/// A follower's copy of the state older than this misleads.
const STALE: Duration = Duration::from_secs(10);

/// An answer to a probe, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good(&'static str),
    Bad(String),
}

#[derive(Clone, Copy, Debug, Default)]
enum Role {
    /// Has just started, or lost the lead and does not know who has it.
    #[default]
    Seeks,
    Leads {
        ticked: Instant,
    },
    Follows {
        mirrored: Instant,
    },
}

/// What this process last said of itself.
#[derive(Debug, Default)]
pub(crate) struct Health {
    role: Mutex<Role>,
}

impl Health {
    pub(super) fn leads(&self, now: Instant) {
        self.set(Role::Leads { ticked: now });
    }

    pub(super) fn ticked(&self, now: Instant) {
        let mut role = self.role.lock().unwrap_or_else(PoisonError::into_inner);
        // A tick that was under way when the lead was lost must not bring it back.
        if let Role::Leads { ticked } = &mut *role {
            *ticked = now;
        }
    }

    pub(super) fn follows(&self, now: Instant) {
        self.set(Role::Follows { mirrored: now });
    }

    pub(super) fn seeks(&self) {
        self.set(Role::Seeks);
    }

    /// Whether this process is better than a new one.
    pub(crate) fn alive(&self, now: Instant) -> Verdict {
        match self.role() {
            Role::Seeks => Verdict::Good("seeks a leader"),
            Role::Follows { .. } => Verdict::Good("follows"),
            Role::Leads { ticked } => {
                let since = now.saturating_duration_since(ticked);
                if since <= STILL {
                    Verdict::Good("leads")
                } else {
                    Verdict::Bad(format!("leads, but its loop stands still for {since:.1?}"))
                }
            }
        }
    }

    /// Whether this process can answer for the cluster.
    pub(crate) fn ready(&self, now: Instant) -> Verdict {
        match self.role() {
            Role::Seeks => Verdict::Bad("neither leads nor follows yet".to_owned()),
            Role::Leads { .. } => self.alive(now),
            Role::Follows { mirrored } => {
                let since = now.saturating_duration_since(mirrored);
                if since <= STALE {
                    Verdict::Good("follows")
                } else {
                    Verdict::Bad(format!("follows, but its copy of the state is {since:.1?} old"))
                }
            }
        }
    }

    fn role(&self) -> Role {
        *self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, role: Role) {
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = role;
    }
}
