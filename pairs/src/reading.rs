//! Reads one tar from front to back, once, in the spans that somebody wants.

use std::io::{self, Read};

use clade_core::job::Failure;

use crate::source::Source;

/// Gaps of more bytes are jumped rather than read through.
const GAP: u64 = 4 << 20;

/// A tar that is read forwards.
///
/// An object is streamed, since a request for each picture would take longer than its bytes; a span that
/// lies further back, or far ahead, is fetched by itself.
pub struct Reading<'a> {
    source: &'a Source,
    /// Where an object is streamed, and how far it has come.
    stream: Option<(Box<dyn Read + Send + 'a>, u64)>,
}

impl<'a> Reading<'a> {
    pub fn new(source: &'a Source) -> Result<Self, Failure> {
        let stream = match source {
            Source::Object { .. } => Some((source.stream()?, 0)),
            Source::File { .. } | Source::Copy { .. } => {
                source.in_order();
                None
            }
        };
        Ok(Self { source, stream })
    }

    /// Fills `into` from `offset` on; returns how much there was before the tar ended.
    pub fn span(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if let Some((stream, at)) = &mut self.stream
            && (*at..=*at + GAP).contains(&offset)
        {
            io::copy(&mut stream.take(offset - *at), &mut io::sink())?;
            let read = fill(into, |into, _| stream.read(into))?;
            *at = offset + read as u64;
            return Ok(read);
        }
        fill(into, |into, done| self.source.read_some(offset + done, into))
    }
}

/// Calls `read` until `into` is full or nothing more comes.
fn fill(
    into: &mut [u8],
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match read(&mut into[done..], done as u64) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
