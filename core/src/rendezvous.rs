//! Where a gang meets, and how its ranks know each other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `address:port` of rank 0, and after a `/` the secret that it drew for its gang.
///
/// Who knows the secret is taken for a rank of the gang, so it is told to the gang's agents only, and
/// neither printed nor logged. A gang by hand may do without.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rendezvous(String);

impl Rendezvous {
    pub fn new(address: &str, secret: &str) -> Self {
        if secret.is_empty() {
            Self(address.to_owned())
        } else {
            Self(format!("{address}/{secret}"))
        }
    }

    /// Where rank 0 listens: `address:port`.
    pub fn address(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(address, _)| address)
    }

    /// Empty if there is none.
    pub fn secret(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, secret)| secret)
    }

    /// The whole, to be told to the gang.
    pub fn tell(&self) -> &str {
        &self.0
    }
}

impl From<String> for Rendezvous {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Rendezvous {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.secret().is_empty() { "" } else { "/…" };
        write!(f, "{}{secret}", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_and_never_printed() {
        let meets = Rendezvous::new("10.0.0.1:4000", "5f3a");
        assert_eq!((meets.address(), meets.secret()), ("10.0.0.1:4000", "5f3a"));
        assert_eq!(Rendezvous::from(meets.tell()), meets);
        assert_eq!(format!("{meets:?}"), "10.0.0.1:4000/…");
        let by_hand = Rendezvous::from("127.0.0.1:1");
        assert_eq!((by_hand.address(), by_hand.secret()), ("127.0.0.1:1", ""));
        assert_eq!(format!("{by_hand:?}"), "127.0.0.1:1");
    }
}
