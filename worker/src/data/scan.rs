//! Reads one input tar from end to end and judges every pair in it.
//!
//! Memory holds one member at a time and the captions of all pairs. Whatever the tar contains,
//! this ends with a list of usable pairs and a list of the others by cause; only a tar that is not
//! there, or a disk that fails, is an error.

mod draft;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use clade_core::ids::Digest;
use clade_store::Hashing;
use tar::{Archive, Entry};

use super::cause::{Cause, Unusable};
use super::index::PairRow;
use draft::{Draft, Kind};

/// A picture or text of more bytes is not read into memory.
const MAX_PICTURE_BYTES: u64 = 256 << 20;
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// What a tar turned out to hold.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) rows: Vec<PairRow>,
    pub(crate) unusable: Unusable,
    /// Bytes and digest of the whole tar.
    pub(crate) bytes: u64,
    pub(crate) sha256: Digest,
}

/// Scans the tar at `path`.
///
/// `go_on` is told pairs seen and bytes read after each member; when it answers no, the scan ends
/// with nothing.
pub(crate) fn scan(
    path: &Path,
    max_pixels: u64,
    mut go_on: impl FnMut(u64, u64) -> bool,
) -> io::Result<Option<Scan>> {
    let mut reader = Hashing::new(BufReader::with_capacity(1 << 20, File::open(path)?));
    let mut drafts: BTreeMap<String, Draft> = BTreeMap::new();
    let mut broken = false;
    {
        let mut archive = Archive::new(&mut reader);
        for entry in archive.entries()? {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    broken = true;
                    corrupt_or_fail(error)?;
                    break;
                }
            };
            let end = entry.raw_file_position() + entry.size();
            if take_in(&mut drafts, &mut entry, max_pixels)? == Member::CutShort {
                broken = true;
                break;
            }
            if !go_on(drafts.len() as u64, end) {
                return Ok(None);
            }
        }
    }
    io::copy(&mut reader, &mut io::sink())?;
    let (_, bytes, sha256) = reader.finish();

    let mut rows = Vec::new();
    let mut unusable = Unusable::default();
    if broken || bytes == 0 {
        unusable.add(Cause::UnreadableTar, &path.display().to_string());
    }
    for (key, draft) in drafts {
        draft.judge(key, &mut rows, &mut unusable);
    }
    rows.sort_by_key(|row| row.offset);
    Ok(Some(Scan { rows, unusable, bytes, sha256 }))
}

/// Tells a broken tar, which is data, from a broken disk, which is not.
fn corrupt_or_fail(error: io::Error) -> io::Result<()> {
    if error.raw_os_error().is_some() { Err(error) } else { Ok(()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Whole,
    CutShort,
}

/// Adds one member to the pair it belongs to.
fn take_in<R: Read>(
    drafts: &mut BTreeMap<String, Draft>,
    entry: &mut Entry<'_, R>,
    max_pixels: u64,
) -> io::Result<Member> {
    if !entry.header().entry_type().is_file() {
        return Ok(Member::Whole);
    }
    let Some((key, kind)) = Kind::of(&String::from_utf8_lossy(&entry.path_bytes())) else {
        return Ok(Member::Whole);
    };
    let (offset, size) = (entry.raw_file_position(), entry.size());
    let limit = match kind {
        Kind::Picture => MAX_PICTURE_BYTES,
        Kind::Text | Kind::Json => MAX_TEXT_BYTES,
        Kind::ForeignPicture => 0,
    };
    let draft = drafts.entry(key).or_default();
    if size > limit {
        draft.too_large(kind);
        return Ok(Member::Whole);
    }
    let mut bytes = Vec::new();
    if let Err(error) = entry.read_to_end(&mut bytes) {
        corrupt_or_fail(error)?;
        return Ok(Member::CutShort);
    }
    if (bytes.len() as u64) < size {
        return Ok(Member::CutShort);
    }
    draft.add(kind, &bytes, offset, max_pixels);
    Ok(Member::Whole)
}

#[cfg(test)]
mod tests;
