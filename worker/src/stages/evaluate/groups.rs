//! Reads a WebDataset tar as groups of members of one stem.
//!
//! Members of a group lie next to one another. A tar that cannot be read to its end is an error:
//! a score over part of a set is no score.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use clade_core::ids::Digest;
use clade_store::Hashing;
use tar::{Archive, EntryType};

/// Picture formats that are read.
pub(super) const PICTURES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// The members of one stem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) key: String,
    /// Content by extension, lower case.
    pub(super) members: BTreeMap<String, Vec<u8>>,
}

impl Group {
    pub(super) fn picture(&self) -> Option<&[u8]> {
        PICTURES.iter().find_map(|extension| self.members.get(*extension)).map(Vec::as_slice)
    }

    /// A member as text without surrounding white space.
    pub(super) fn text(&self, extension: &str) -> Option<String> {
        let bytes = self.members.get(extension)?;
        Some(String::from_utf8_lossy(bytes).trim().to_owned())
    }
}

/// Why reading a tar ended early.
pub(super) enum Interrupted<E> {
    Unreadable(io::Error),
    Visitor(E),
}

/// Visits every group of a tar in order and returns the tar's digest.
pub(super) fn visit<E>(
    path: &Path,
    mut visitor: impl FnMut(Group) -> Result<(), E>,
) -> Result<Digest, Interrupted<E>> {
    let file = File::open(path).map_err(Interrupted::Unreadable)?;
    let mut archive = Archive::new(Hashing::new(BufReader::with_capacity(1 << 16, file)));
    let mut group = Group::default();
    for entry in archive.entries().map_err(Interrupted::Unreadable)? {
        let mut entry = entry.map_err(Interrupted::Unreadable)?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((key, extension)) = split(&name) else { continue };
        if key != group.key && !group.members.is_empty() {
            visitor(std::mem::take(&mut group)).map_err(Interrupted::Visitor)?;
        }
        key.clone_into(&mut group.key);
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(Interrupted::Unreadable)?;
        group.members.insert(extension, content);
    }
    if !group.members.is_empty() {
        visitor(group).map_err(Interrupted::Visitor)?;
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(Interrupted::Unreadable)?;
    Ok(rest.finish().2)
}

/// Counts the pictures of a tar from its headers alone.
pub(super) fn count_pictures(path: &Path) -> io::Result<u64> {
    let mut archive = Archive::new(File::open(path)?);
    let mut pictures = 0;
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let is_picture = split(&name).is_some_and(|(_, it)| PICTURES.contains(&it.as_str()));
        pictures += u64::from(is_picture);
    }
    Ok(pictures)
}

/// A member's stem (up to the first dot of the file name) and its extension in lower case.
fn split(name: &str) -> Option<(&str, String)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    (dot > file).then(|| (&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}
