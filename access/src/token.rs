//! Bearer tokens: the secret that its owner keeps, and the digest that the coordinator keeps.

mod append;
mod entry;
mod file;

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

pub use append::append;
pub use entry::{Entry, Expiry};
pub use file::{TokenFile, TokenFileError, Tokens};

const PREFIX: &str = "clade_";
const SECRET_BYTES: usize = 32;

/// A token as its owner keeps it. Never shown but by [`Token::reveal`].
pub struct Token(String);

impl Token {
    /// Draws a new one from the operating system's randomness.
    pub fn draw() -> std::io::Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", hexadecimal(&secret))))
    }

    /// The token itself, to be printed once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a token. A token is 256 random bits, so nothing slower is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Takes 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Compares in a time that does not tell how much is equal.
    pub(crate) fn equals(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({self})")
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_random_and_never_shown() {
        let (one, other) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert_ne!(one.reveal(), other.reveal());
        assert!(one.reveal().starts_with("clade_") && one.reveal().len() == 70);
        assert_eq!(format!("{one:?}"), "Token(…)");
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        // printf clade_x | sha256sum
        let digest = TokenDigest::of("clade_x");
        assert_eq!(
            digest.to_string(),
            "c67b01cf62ffaad36eaa9a19cc84d34424742ecc54cf57645390a3d127318e29"
        );
        assert_eq!(TokenDigest::parse(&digest.to_string()), Some(digest));
        assert_eq!(TokenDigest::parse(&digest.to_string().to_uppercase()), Some(digest));
        let odd = digest.to_string().replace(|c: char| c.is_ascii_digit(), "+");
        for bad in ["", "00", odd.as_str()] {
            assert_eq!(TokenDigest::parse(bad), None, "{bad}");
        }
        assert!(bool::from(digest.equals(&TokenDigest::of("clade_x"))));
        assert!(!bool::from(digest.equals(&TokenDigest::of("clade_y"))));
    }
}
