//! Puts the tar of a shard together in memory, telling where each member's bytes lie.
//!
//! What is put together is handed on piece by piece: a tar is never held whole.

use std::io;

use tar::{Builder, Header};

const BLOCK: u64 = 512;

/// A tar in the making. The same members give the same bytes.
pub struct TarFile {
    builder: Builder<Vec<u8>>,
    /// Bytes handed on already.
    taken: u64,
}

impl Default for TarFile {
    fn default() -> Self {
        Self { builder: Builder::new(Vec::new()), taken: 0 }
    }
}

impl TarFile {
    /// Bytes put together so far, those handed on included.
    pub fn bytes(&self) -> u64 {
        self.taken + self.builder.get_ref().len() as u64
    }

    /// Appends a member and returns where its content starts.
    pub fn append(&mut self, name: &str, content: &[u8]) -> io::Result<u64> {
        let length = content.len() as u64;
        let mut header = Header::new_gnu();
        header.set_size(length);
        header.set_mode(0o644);
        self.builder.append_data(&mut header, name, content)?;
        Ok(self.bytes() - length.next_multiple_of(BLOCK))
    }

    /// What was put together since the last call, once it is at least `enough` bytes.
    pub fn take(&mut self, enough: usize) -> Option<Vec<u8>> {
        if self.builder.get_ref().len() < enough {
            return None;
        }
        let capacity = self.builder.get_ref().capacity();
        let taken = std::mem::replace(self.builder.get_mut(), Vec::with_capacity(capacity));
        self.taken += taken.len() as u64;
        Some(taken)
    }

    /// Ends the tar and hands on the rest of it.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.builder.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_in_pieces_is_the_tar_made_at_once() {
        let long = format!("{}/x.jpg", "long".repeat(40));
        let members = [("a.txt", 3_usize), (&*long, 5_000), ("b", 0), ("c", 512)];
        let make = |enough: usize| {
            let mut tar = TarFile::default();
            let mut whole = Vec::new();
            let mut places = Vec::new();
            for (name, length) in members {
                places.push((tar.append(name, &vec![b'x'; length]).unwrap(), length));
                whole.extend(tar.take(enough).unwrap_or_default());
            }
            let bytes = tar.bytes();
            let rest = tar.finish().unwrap();
            assert_eq!(whole.len() as u64 + rest.len() as u64, bytes + 1024, "two blocks end it");
            whole.extend(rest);
            for (at, length) in places {
                let at = usize::try_from(at).unwrap();
                assert!(whole[at..at + length].iter().all(|&byte| byte == b'x'));
            }
            whole
        };
        assert_eq!(make(1), make(usize::MAX));
    }
}
