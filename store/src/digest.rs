//! SHA-256 of bytes in memory and of bytes passing by.

use std::io::{self, Read, Write};

use clade_core::ids::Digest;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of `bytes`.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Passes bytes through to `inner` (or from it), computing their digest and count on the way.
#[derive(Debug)]
pub struct Hashing<T> {
    inner: T,
    state: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Self {
        Self { inner, state: Sha256::new(), bytes: 0 }
    }

    /// Bytes that have passed so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The inner value, and count and digest of what passed.
    pub fn finish(self) -> (T, u64, Digest) {
        (self.inner, self.bytes, Digest(self.state.finalize().into()))
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.passed(&buffer[..read]);
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.passed(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
