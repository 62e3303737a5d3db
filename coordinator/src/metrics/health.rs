//! Whether this process should be restarted (`/healthz`) and whether it should be asked
//! (`/readyz`).
//!
//! A standby that cannot reach the state store is not restarted, since a new one could not
//! either; it is not asked. A leader whose loop stands still is restarted, so that another leads. One
//! that waits for the state store is not: nobody could lead in its place. It is not asked either.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A leader whose loop has not come around for this long stands still.
const STILL: Duration = Duration::from_secs(10);

/// A leader that has waited for the state store for this long decides nothing.
const WAITED: Duration = Duration::from_secs(5);

/// A follower's copy of the state older than this misleads.
pub(crate) const STALE: Duration = Duration::from_secs(10);

const WAITS: &str = "leads, and waits for the state store";

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
        /// When it was last heard to wait for the state store, if it has not gone on since.
        waited: Option<Instant>,
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
        self.set(Role::Leads { ticked: now, waited: None });
    }

    pub(super) fn ticked(&self, now: Instant) {
        let mut role = self.role.lock().unwrap_or_else(PoisonError::into_inner);
        // A tick that was under way when the lead was lost must not bring it back.
        if let Role::Leads { ticked, waited } = &mut *role {
            (*ticked, *waited) = (now, None);
        }
    }

    pub(super) fn waits(&self, now: Instant) {
        let mut role = self.role.lock().unwrap_or_else(PoisonError::into_inner);
        if let Role::Leads { waited, .. } = &mut *role {
            *waited = Some(now);
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
            Role::Leads { ticked, waited } => {
                let since = now.saturating_duration_since(waited.unwrap_or(ticked).max(ticked));
                if since <= STILL {
                    Verdict::Good(if waited.is_some() { WAITS } else { "leads" })
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
            Role::Leads { ticked, waited } => {
                let since = now.saturating_duration_since(ticked);
                if waited.is_some() && since > WAITED {
                    Verdict::Bad(format!("{WAITS} for {since:.1?}"))
                } else {
                    self.alive(now)
                }
            }
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
