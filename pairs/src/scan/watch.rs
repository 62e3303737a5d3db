//! Looks over a tar's bytes as they are read: digest, count, how they end, and whether reading failed.
//!
//! The digest takes as long as everything else together, so it is made on a thread of its own.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use clade_core::ids::Digest;
use clade_store::Hashing;

/// Bytes asked for at a time, and how many such chunks may wait to be digested.
const CHUNK: usize = 1 << 20;
const CHUNKS: usize = 4;
/// A tar ends in two blocks of this size; writers that end in one are put up with.
const BLOCK: u64 = 512;

/// A reader that remembers its own failure: whatever else goes wrong is the tar's fault.
pub(super) struct Watch<'scope, R> {
    inner: R,
    /// The chunk being read from: its bytes, how many there are and how many are taken.
    chunk: Arc<Vec<u8>>,
    filled: usize,
    at: usize,
    /// Chunks that were read, oldest first: used again once they are digested.
    used: VecDeque<Arc<Vec<u8>>>,
    to_digest: SyncSender<(Arc<Vec<u8>>, usize)>,
    digester: ScopedJoinHandle<'scope, (u64, Digest)>,
    /// Noughts at the end of what was read.
    noughts: u64,
    /// Bytes read.
    bytes: u64,
    failure: Option<io::Error>,
}

fn digest(chunks: &Receiver<(Arc<Vec<u8>>, usize)>) -> (u64, Digest) {
    let mut digest = Hashing::new(io::sink());
    for (chunk, filled) in chunks {
        io::Write::write_all(&mut digest, &chunk[..filled]).expect("a sink takes everything");
    }
    let (_, bytes, digest) = digest.finish();
    (bytes, digest)
}

impl<'scope, R: Read> Watch<'scope, R> {
    pub(super) fn new(inner: R, scope: &'scope Scope<'scope, '_>) -> io::Result<Self> {
        let (to_digest, chunks) = sync_channel(CHUNKS);
        let thread = std::thread::Builder::new().name("digest".to_owned());
        let digester = thread.spawn_scoped(scope, move || digest(&chunks))?;
        Ok(Self {
            inner,
            chunk: Arc::default(),
            filled: 0,
            at: 0,
            used: VecDeque::new(),
            to_digest,
            digester,
            noughts: 0,
            bytes: 0,
            failure: None,
        })
    }

    /// Reads to the end, past whatever stopped the tar from being understood.
    ///
    /// `go_on` is told bytes read; false if it wants no more.
    pub(super) fn rest(&mut self, mut go_on: impl FnMut(u64) -> bool) -> io::Result<bool> {
        loop {
            if let Err(error) = self.fill() {
                return Err(self.failure.take().unwrap_or(error));
            }
            if self.filled == 0 {
                return Ok(true);
            }
            if !go_on(self.bytes) {
                return Ok(false);
            }
        }
    }

    /// Bytes, digest, and whether they end in a block of noughts.
    pub(super) fn finish(self) -> io::Result<(u64, Digest, bool)> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        drop(self.to_digest);
        match self.digester.join() {
            Ok((bytes, digest)) => Ok((bytes, digest, self.noughts >= BLOCK)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::from(failure.kind()));
        }
        self.used.push_back(std::mem::take(&mut self.chunk));
        (self.at, self.filled) = (0, 0);
        let mut chunk = self.empty_chunk();
        let memory = Arc::get_mut(&mut chunk).expect("nobody else has it");
        let read = loop {
            match self.inner.read(memory) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                read => break read,
            }
        };
        match read {
            Ok(read) => {
                let last = memory[..read].iter().rposition(|&byte| byte != 0);
                self.noughts = match last {
                    Some(last) => (read - last - 1) as u64,
                    None => self.noughts + read as u64,
                };
                self.filled = read;
                self.bytes += read as u64;
                if read > 0 {
                    // Whether it is still there shows when it is asked for the digest.
                    let _ = self.to_digest.send((Arc::clone(&chunk), read));
                }
                self.chunk = chunk;
                Ok(())
            }
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(io::Error::from(kind))
            }
        }
    }

    /// A chunk to read into: one that is digested, if there is one.
    fn empty_chunk(&mut self) -> Arc<Vec<u8>> {
        let is_free = |chunk: &Arc<Vec<u8>>| Arc::strong_count(chunk) == 1 && chunk.len() == CHUNK;
        match self.used.iter().position(is_free).and_then(|at| self.used.remove(at)) {
            Some(chunk) => chunk,
            None => {
                self.used.retain(|chunk| chunk.len() == CHUNK);
                Arc::new(vec![0; CHUNK])
            }
        }
    }
}

impl<R: Read> Read for Watch<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.filled {
            self.fill()?;
        }
        let part = into.len().min(self.filled - self.at);
        into[..part].copy_from_slice(&self.chunk[self.at..self.at + part]);
        self.at += part;
        Ok(part)
    }
}
