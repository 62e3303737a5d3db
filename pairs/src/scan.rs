//! Reads one input tar from end to end and judges every pair in it.
//!
//! Whatever the tar contains, this ends with rows of usable pairs and a list of the others by cause;
//! only a tar that cannot be read, and a receiver that refuses rows, are errors.
//!
//! Memory holds one member, the pairs whose members have not all come yet, and 24 bytes for each key
//! seen. Pairs are handed on when their members end, as `WebDataset` tars have them together; those of a
//! tar that holds first all pictures and then all texts wait for its end, up to [`MAX_WAITING`].

mod draft;
mod names;
mod watch;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};

use clade_core::ids::Digest;
use tar::{Archive, Entry};
use xxhash_rust::xxh3::xxh3_128;

use super::cause::{Cause, Place, Unusable};
use super::index::PairRow;
use draft::{Draft, Kind, Member};
use names::{Name, Role};
use watch::Watch;

/// A picture or text of more bytes is not read into memory.
const MAX_PICTURE_BYTES: u64 = 64 << 20;
const MAX_TEXT_BYTES: u64 = 4 << 20;
/// Bytes of pairs that wait for their other members.
const MAX_WAITING: usize = 192 << 20;

/// What a tar turned out to hold, beside its usable pairs.
#[derive(Debug)]
pub struct Scan {
    /// Usable pairs.
    pub pairs: u64,
    pub unusable: Unusable,
    /// Bytes and digest of the whole tar.
    pub bytes: u64,
    pub sha256: Digest,
}

/// How a scan is done.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// Pictures of more pixels by their header are refused.
    pub max_pixels: u64,
    /// Bytes of pairs that may wait for their other members.
    max_waiting: usize,
}

impl ScanOptions {
    pub const fn new(max_pixels: u64) -> Self {
        Self { max_pixels, max_waiting: MAX_WAITING }
    }
}

/// Scans a tar; `name` is what places in it are listed under.
///
/// Usable pairs go to `rows`, whose refusal ends the scan. `go_on` is told pairs and bytes read after
/// each member; when it answers no, the scan ends with nothing.
pub fn scan(
    tar: impl Read,
    name: &str,
    options: ScanOptions,
    rows: impl FnMut(PairRow) -> io::Result<()>,
    go_on: impl FnMut(u64, u64) -> bool,
) -> io::Result<Option<Scan>> {
    std::thread::scope(|scope| {
        let watch = Watch::new(tar, scope)?;
        scan_watched(watch, name, options, rows, go_on)
    })
}

fn scan_watched(
    mut watch: Watch<'_, impl Read>,
    name: &str,
    options: ScanOptions,
    rows: impl FnMut(PairRow) -> io::Result<()>,
    mut go_on: impl FnMut(u64, u64) -> bool,
) -> io::Result<Option<Scan>> {
    let mut pairs = Pairs::new(name, options, rows);
    let mut buffer = Vec::new();
    let mut broken = None;
    {
        let mut archive = Archive::new(&mut watch);
        // Tars that were joined with `cat` are read to their end.
        archive.set_ignore_zeros(true);
        let (mut end, mut next) = (0, Name::default());
        for entry in archive.entries()?.raw(true) {
            let Ok(mut entry) = entry else {
                broken = Some(end);
                break;
            };
            let start = entry.raw_header_position();
            // A header may claim any size.
            let padded = entry.size().checked_next_multiple_of(512).unwrap_or(u64::MAX);
            end = entry.raw_file_position().saturating_add(padded);
            let taken = match next.meet(&mut entry) {
                Ok(role) => pairs.take_in(role, &mut entry, &mut buffer)?,
                Err(_) => Taken::CutShort,
            };
            if taken == Taken::CutShort {
                broken = Some(start);
                break;
            }
            if !go_on(pairs.seen(), end) {
                return Ok(None);
            }
        }
    }
    if !watch.rest(|bytes| go_on(pairs.seen(), bytes))? {
        return Ok(None);
    }
    // A tar ends in blocks of noughts; without them nobody knows what else it held.
    let (bytes, sha256, ends_in_noughts) = watch.finish()?;
    if broken.is_none() && !ends_in_noughts {
        broken = Some(bytes);
    }
    let (pairs, mut unusable) = pairs.finish()?;
    if let Some(offset) = broken {
        // A header may claim more than there is.
        let offset = offset.min(bytes);
        unusable.add(Cause::UnreadableTar, Place { key: None, tar: name.to_owned(), offset });
    }
    Ok(Some(Scan { pairs, unusable, bytes, sha256 }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Whole,
    CutShort,
}

/// Pairs while their members come in.
struct Pairs<'a, F> {
    name: &'a str,
    options: ScanOptions,
    rows: F,
    usable: u64,
    unusable: Unusable,
    /// The pair whose members come just now.
    current: Option<(String, Draft)>,
    /// Pairs that lack something, or whose members did not come together, by their first member's place.
    waiting: BTreeMap<u64, (String, Draft)>,
    places: BTreeMap<String, u64>,
    waiting_bytes: usize,
    /// Hashes of the keys that are judged.
    judged: HashSet<u128>,
}

impl<'a, F: FnMut(PairRow) -> io::Result<()>> Pairs<'a, F> {
    fn new(name: &'a str, options: ScanOptions, rows: F) -> Self {
        Self {
            name,
            options,
            rows,
            usable: 0,
            unusable: Unusable::default(),
            current: None,
            waiting: BTreeMap::new(),
            places: BTreeMap::new(),
            waiting_bytes: 0,
            judged: HashSet::new(),
        }
    }

    /// Pairs met so far.
    fn seen(&self) -> u64 {
        (self.judged.len() + self.waiting.len()) as u64 + u64::from(self.current.is_some())
    }

    /// Adds one member to the pair it belongs to.
    fn take_in<R: Read>(
        &mut self,
        role: Role,
        entry: &mut Entry<'_, R>,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Taken> {
        let (header, offset, size) =
            (entry.raw_header_position(), entry.raw_file_position(), entry.size());
        let (name, is_link) = match role {
            Role::File(name) => (name, false),
            Role::Link(name) => (name, true),
            Role::Header | Role::Other => return Ok(Taken::Whole),
        };
        let name = match name {
            Name::Own => entry.path_bytes().into_owned(),
            Name::Given(name) => name,
            Name::TooLong => {
                let place = Place { key: None, tar: self.name.to_owned(), offset: header };
                self.unusable.add(Cause::BadName, place);
                return Ok(Taken::Whole);
            }
        };
        let Some((key, kind, is_bad)) = Kind::of(&name) else {
            return Ok(Taken::Whole);
        };
        // A link to a picture is none; a link to a text leaves the pair without it.
        let kind = match kind {
            Kind::Text | Kind::Json if is_link => return Ok(Taken::Whole),
            Kind::Picture if is_link => Kind::ForeignPicture,
            Kind::Picture | Kind::ForeignPicture | Kind::Text | Kind::Json => kind,
        };
        self.turn_to(key, header)?;
        let limit = match kind {
            Kind::Picture => MAX_PICTURE_BYTES,
            Kind::Text | Kind::Json => MAX_TEXT_BYTES,
            Kind::ForeignPicture => 0,
        };
        let (_, draft) = self.current.as_mut().expect("it was just turned to");
        if is_bad {
            draft.bad_name();
        }
        if size > limit {
            draft.too_large(kind);
            return Ok(Taken::Whole);
        }
        buffer.clear();
        // The tar's own faults show as errors too: whether reading itself failed, the watch knows.
        if entry.read_to_end(buffer).is_err() || (buffer.len() as u64) < size {
            return Ok(Taken::CutShort);
        }
        draft.add(kind, Member { bytes: buffer, offset }, self.options.max_pixels);
        Ok(Taken::Whole)
    }

    /// Makes `key` the current pair.
    fn turn_to(&mut self, key: String, header: u64) -> io::Result<()> {
        if self.current.as_ref().is_some_and(|(current, _)| *current == key) {
            return Ok(());
        }
        self.put_aside()?;
        let draft = match self.places.remove(&key) {
            Some(place) => {
                let (_, mut draft) = self.waiting.remove(&place).expect("every place holds one");
                self.waiting_bytes -= draft.bytes() + 2 * key.len();
                draft.scattered();
                draft
            }
            None => Draft::at(header),
        };
        self.current = Some((key, draft));
        Ok(())
    }

    /// Judges the current pair if its members stood together and are all there, or lets it wait.
    fn put_aside(&mut self) -> io::Result<()> {
        let Some((key, draft)) = self.current.take() else { return Ok(()) };
        if draft.is_complete() {
            return self.judge(key, draft);
        }
        self.waiting_bytes += draft.bytes() + 2 * key.len();
        self.places.insert(key.clone(), draft.place());
        self.waiting.insert(draft.place(), (key, draft));
        while self.waiting_bytes > self.options.max_waiting
            && let Some((_, (key, draft))) = self.waiting.pop_first()
        {
            self.places.remove(&key);
            self.waiting_bytes -= draft.bytes() + 2 * key.len();
            self.judge(key, draft)?;
        }
        Ok(())
    }

    fn judge(&mut self, key: String, draft: Draft) -> io::Result<()> {
        let offset = draft.place();
        let place = |key| Place { key: Some(key), tar: self.name.to_owned(), offset };
        if !self.judged.insert(xxh3_128(key.as_bytes())) {
            self.unusable.add(Cause::DuplicateKey, place(key));
            return Ok(());
        }
        for _ in 0..draft.surplus() {
            self.unusable.add(Cause::DuplicateKey, place(key.clone()));
        }
        match draft.judge(key.clone()) {
            Ok(row) => {
                self.usable += 1;
                (self.rows)(row)
            }
            Err(cause) => {
                self.unusable.add(cause, place(key));
                Ok(())
            }
        }
    }

    /// Judges what is left.
    fn finish(mut self) -> io::Result<(u64, Unusable)> {
        self.put_aside()?;
        while let Some((_, (key, draft))) = self.waiting.pop_first() {
            self.judge(key, draft)?;
        }
        Ok((self.usable, self.unusable))
    }
}

#[cfg(test)]
mod tests;
