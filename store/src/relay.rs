//! Bytes handed on to another thread, which digests and writes them there.
//!
//! A part is digested while the next one is gathered and the one before is on its way, so neither
//! waits for the other, and no thread of the runtime computes for long.

use std::io::{self, Write};

use bytes::Bytes;
use clade_core::ids::Digest;
use tokio::task::JoinHandle;

use crate::digest::Hashing;

/// Digests less than this where it is: going to another thread would cost more.
const IN_PLACE: usize = 64 << 10;

/// Writes to `W`, in order, on the threads kept for blocking work.
pub(crate) struct Relay<W> {
    /// Nothing only while a call is under way, or after one was cancelled or failed.
    at: Option<At<W>>,
}

enum At<W> {
    Here(Hashing<W>),
    Away(JoinHandle<io::Result<Hashing<W>>>),
}

impl<W: Write + Send + 'static> Relay<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { at: Some(At::Here(Hashing::new(inner))) }
    }

    /// Hands `chunks` on once those before them are done with.
    pub(crate) async fn pass(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        let mut writer = self.back().await?;
        let write = move || {
            for chunk in chunks {
                writer.write_all(&chunk)?;
            }
            Ok(writer)
        };
        self.at = Some(At::Away(tokio::task::spawn_blocking(write)));
        Ok(())
    }

    /// Waits for all that was passed: the writer, and count and digest of its bytes.
    pub(crate) async fn finish(mut self) -> io::Result<(W, u64, Digest)> {
        Ok(self.back().await?.finish())
    }

    async fn back(&mut self) -> io::Result<Hashing<W>> {
        match self.at.take() {
            Some(At::Here(writer)) => Ok(writer),
            Some(At::Away(task)) => task.await.map_err(io::Error::other)?,
            None => Err(io::Error::other("an earlier write failed or was broken off")),
        }
    }
}

impl Relay<io::Sink> {
    /// Digests `chunks`, in place if they are few and nothing is under way.
    pub(crate) async fn digest(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        if bytes > IN_PLACE {
            return self.pass(chunks.to_vec()).await;
        }
        let mut writer = self.back().await?;
        for chunk in chunks {
            writer.write_all(chunk)?;
        }
        self.at = Some(At::Here(writer));
        Ok(())
    }
}
