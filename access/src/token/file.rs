//! The file of tokens: who may come in, by the digests of their tokens.
//!
//! It is read again when it changes, so that a token can be withdrawn at once. A file that is
//! broken changes nothing: better the list of a moment ago than none, or everybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use tokio::sync::watch;

use super::TokenDigest;
use super::entry::{Entry, RawEntry};
use crate::identity::{Identity, Proof};
use crate::renewal::Trouble;

/// Room for more than 50,000 tokens.
pub(super) const LARGEST_FILE: u64 = 16 << 20;

/// Why a token file is not used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("cannot read the tokens in {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },

    #[error("cannot write the tokens to {}: {source}; or add the entry by hand", path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },

    #[error("the tokens in {} mean nothing: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
}

/// Owns the list; others look it up through [`Tokens`].
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    bytes: Vec<u8>,
    list: watch::Sender<Arc<[Entry]>>,
    trouble: Trouble,
}

/// The newest list.
#[derive(Clone, Debug)]
pub struct Tokens {
    list: watch::Receiver<Arc<[Entry]>>,
}

impl TokenFile {
    pub fn open(path: &Path) -> Result<Self, TokenFileError> {
        let (bytes, entries) = read(path)?;
        let list = watch::Sender::new(entries);
        Ok(Self { path: path.to_owned(), bytes, list, trouble: Trouble::default() })
    }

    pub fn tokens(&self) -> Tokens {
        Tokens { list: self.list.subscribe() }
    }

    /// Reads it again; whether it has changed.
    pub fn reread(&mut self) -> Result<bool, TokenFileError> {
        let (bytes, entries) = read(&self.path)?;
        if bytes == self.bytes {
            return Ok(false);
        }
        self.bytes = bytes;
        self.list.send_replace(entries);
        Ok(true)
    }

    /// Reads it again and logs what came of it.
    pub(crate) fn refresh(&mut self) {
        match self.reread() {
            Ok(true) => {
                let (path, tokens) = (self.path.display(), self.list.borrow().len());
                tracing::info!(%path, tokens, "tokens changed");
            }
            Ok(false) => (),
            Err(error) => return self.trouble.meet(&error),
        }
        self.trouble.clear();
    }
}

impl Tokens {
    /// Whose token it is, expired or not.
    pub(crate) fn owner(&self, token: &str) -> Option<Identity> {
        let digest = TokenDigest::of(token);
        let list = Arc::clone(&self.list.borrow());
        // Every entry is looked at, so the time tells neither whether nor where it is found.
        let mut found = 0_u64;
        for (place, entry) in (1_u64..).zip(list.iter()) {
            found.conditional_assign(&place, entry.digest.equals(&digest));
        }
        if bool::from(found.ct_eq(&0)) {
            return None;
        }
        let place = usize::try_from(found - 1).ok()?;
        list.get(place).map(|entry| entry.identity.clone())
    }

    /// Whether the list still has this identity as it was, or has never had it by a token.
    pub(crate) fn still_has(&self, identity: &Identity) -> bool {
        match identity.proof {
            Proof::Token(_) => self.list.borrow().iter().any(|entry| entry.identity == *identity),
            Proof::NotAsked | Proof::Certificate => true,
        }
    }

    /// Waits for the next change of the list; forever if nobody reads the file any more.
    pub(crate) async fn changed(&mut self) {
        if self.list.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Entry {
    /// Whether the token has ended by `now`.
    pub fn has_ended(&self, now: SystemTime) -> bool {
        self.identity.ends.is_some_and(|end| end <= now)
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, Arc<[Entry]>), TokenFileError> {
    let bytes = crate::file::read_small(path, LARGEST_FILE)
        .map_err(|source| TokenFileError::Unreadable { path: path.to_owned(), source })?;
    let entries =
        parse(&bytes).map_err(|why| TokenFileError::Malformed { path: path.to_owned(), why })?;
    Ok((bytes, entries))
}

pub(super) fn parse(bytes: &[u8]) -> Result<Arc<[Entry]>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let only_comments =
        text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
    if only_comments {
        // An emptied file could as well be one that is being written.
        return Err("it is empty; to let nobody in by a token, write []".to_owned());
    }
    let raw: Vec<RawEntry> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let entries = raw.into_iter().map(Entry::try_from).collect::<Result<Vec<_>, _>>()?;
    let mut digests: Vec<_> = entries.iter().map(|entry| (entry.digest, entry)).collect();
    digests.sort_by_key(|(digest, _)| *digest);
    if let Some(twice) = digests.windows(2).find(|two| two[0].0 == two[1].0) {
        let (one, other) = (twice[0].1.identity.name(), twice[1].1.identity.name());
        return Err(format!("{one} and {other} have the same token"));
    }
    Ok(entries.into())
}

#[cfg(test)]
mod tests;
