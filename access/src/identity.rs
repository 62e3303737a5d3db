//! Who a caller is, once proved.

use std::time::SystemTime;

use crate::Role;
use crate::token::TokenDigest;

/// The name of a worker's identity that may speak for any worker.
pub const ANY_WORKER: &str = "*";

/// Travels in the extensions of every request that the guard lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
    role: Role,
    pub(crate) proof: Proof,
    /// When the proof expires.
    pub(crate) ends: Option<SystemTime>,
    /// Whether a worker's may claim nodes that are not named as it is.
    has_any_node: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// `--no-auth`: everybody may everything.
    NotAsked,
    Token(TokenDigest),
    Certificate,
}

/// A name that no identity may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name who asks: use up to 64 letters, digits and . _ @ -, or * for a worker's identity \
     that may speak for any worker"
)]
pub struct BadName(String);

impl Identity {
    pub(crate) fn new(
        name: &str,
        role: Role,
        proof: Proof,
        ends: Option<SystemTime>,
    ) -> Result<Self, BadName> {
        check_name(name, role)?;
        Ok(Self { name: name.to_owned(), role, proof, ends, has_any_node: false })
    }

    /// The same, for workers that share it on several nodes.
    pub(crate) const fn with_any_node(mut self) -> Self {
        self.has_any_node = true;
        self
    }

    pub(crate) const fn has_any_node(&self) -> bool {
        self.has_any_node
    }

    /// Who asks where nobody is asked who they are.
    pub(crate) fn not_asked() -> Self {
        let (name, proof) = ("anybody".to_owned(), Proof::NotAsked);
        Self { name, role: Role::Admin, proof, ends: None, has_any_node: true }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether it may do what takes at least `least`.
    pub const fn may(&self, least: Role) -> bool {
        matches!(self.proof, Proof::NotAsked) || self.role.includes(least)
    }

    /// Whether it may say hello as this worker: `gpu7` may as `gpu7` and as `gpu7-…`.
    pub fn may_speak_for(&self, worker: &str) -> bool {
        matches!(self.proof, Proof::NotAsked)
            || self.role == Role::Worker && (self.name == ANY_WORKER || self.owns(worker))
    }

    /// Whether its workers may say that they are on this node: `gpu7` on `gpu7` and `gpu7-…`. What
    /// fails on a node counts against it, so nobody may claim another's.
    pub fn may_claim(&self, node: &str) -> bool {
        let is_any = self.has_any_node || self.name == ANY_WORKER || self.owns(node);
        matches!(self.proof, Proof::NotAsked) || self.role == Role::Worker && is_any
    }

    fn owns(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

/// Whether an identity of this role may have this name.
pub fn check_name(name: &str, role: Role) -> Result<(), BadName> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    let is_plain = (1..=64).contains(&name.len()) && name.chars().all(plain);
    let is_any_worker = role == Role::Worker && name == ANY_WORKER;
    if is_plain || is_any_worker { Ok(()) } else { Err(BadName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, role: Role) -> Identity {
        Identity::new(name, role, Proof::Certificate, None).unwrap()
    }

    #[test]
    fn a_worker_speaks_for_itself_and_its_lifetimes_alone() {
        let gpu7 = identity("gpu7", Role::Worker);
        assert!(gpu7.may_speak_for("gpu7"));
        assert!(gpu7.may_speak_for("gpu7-1a2b"));
        for other in ["gpu71", "gpu", "gpu8", "", "-", "GPU7"] {
            assert!(!gpu7.may_speak_for(other), "{other}");
        }
        assert!(identity("*", Role::Worker).may_speak_for("gpu8"));
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert!(!identity("gpu7", role).may_speak_for("gpu7"), "{role}");
        }
        assert!(Identity::not_asked().may_speak_for("gpu8"));
    }

    #[test]
    fn a_worker_claims_its_own_node_unless_its_identity_is_for_several() {
        let gpu7 = identity("gpu7", Role::Worker);
        assert!(gpu7.may_claim("gpu7") && gpu7.may_claim("gpu7-a"));
        for other in ["gpu8", "gpu71", "", "gpu7.lan"] {
            assert!(!gpu7.may_claim(other), "{other}");
        }
        let shared = gpu7.with_any_node();
        assert!(shared.may_claim("gpu8") && !shared.may_speak_for("gpu8"));
        assert!(identity("*", Role::Worker).may_claim("gpu8"));
        assert!(!identity("gpu7", Role::Admin).with_any_node().may_claim("gpu7"));
        assert!(Identity::not_asked().may_claim("gpu8"));
    }

    #[test]
    fn only_a_worker_may_be_called_by_a_star() {
        for (name, role) in
            [("*", Role::Admin), ("", Role::Viewer), ("a b", Role::Viewer), ("a\n", Role::Worker)]
        {
            assert!(Identity::new(name, role, Proof::Certificate, None).is_err(), "{name:?}");
        }
    }
}
