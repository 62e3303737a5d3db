//! The secret of a gang: its ranks prove to each other that they know it, and never send it.

use clade_core::rendezvous::Rendezvous;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Drawn by rank 0 for one incarnation, and told to the others by way of the coordinator.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Which end of a connection proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Caller = 1,
    Listener = 2,
}

impl Secret {
    /// A fresh one of 256 bits.
    ///
    /// # Panics
    ///
    /// If the system has no randomness, which it says at start or never.
    pub fn draw() -> Self {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).expect("the system gives randomness");
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The one that a gang was told; empty for a gang by hand that does without.
    pub fn of(meets: &Rendezvous) -> Self {
        Self(meets.secret().to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What `end` of a connection sends to prove that it knows the secret: valid for this hello, which
    /// holds the caller's nonce, and for the listener's nonce.
    pub(super) fn proof(&self, end: End, hello: &str, nonce: &str) -> String {
        self.mac(end as u8, hello, nonce).finalize().into_bytes().iter().map(hex).collect()
    }

    /// Whether `proof` is that of `end`; takes the same time whatever is wrong.
    pub(super) fn proves(&self, proof: &str, end: End, hello: &str, nonce: &str) -> bool {
        let bytes: Option<Vec<u8>> = proof
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        bytes.is_some_and(|it| self.mac(end as u8, hello, nonce).verify_slice(&it).is_ok())
    }

    /// Seeds the digests of what travels over one connection.
    pub(super) fn seed(&self, hello: &str, nonce: &str) -> u64 {
        let key = self.mac(0, hello, nonce).finalize().into_bytes();
        key.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }

    fn mac(&self, what: u8, hello: &str, nonce: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(&[what]);
        // Each part with its length, so that none can be read as the end of another.
        for part in [hello, nonce] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn hex(byte: &u8) -> String {
    format!("{byte:02x}")
}

/// A number that no other connection has had.
pub(super) fn nonce() -> String {
    Secret::draw().0
}
