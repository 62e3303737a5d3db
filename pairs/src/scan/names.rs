//! The names of members, where GNU's and PAX's headers give them before the member itself.
//!
//! Only so much of such a header is read: a name of gigabytes is a way to fill memory, and no name.

use std::io::{self, Read};

use tar::{Entry, PaxExtensions};

/// Bytes of a header that is read for a name.
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// What the headers since the last member said of the next one's name.
#[derive(Debug, Default)]
pub(super) enum Name {
    /// Nothing: its own header has it.
    #[default]
    Own,
    Given(Vec<u8>),
    /// More than is read.
    TooLong,
}

/// What an entry of a tar is.
pub(super) enum Role {
    /// Said something about the next one.
    Header,
    /// A file's content.
    File(Name),
    /// A link to another member or file.
    Link(Name),
    /// A folder, a device, a note for all: nothing that a pair is made of.
    Other,
}

impl Name {
    /// Takes in one entry of a tar that is read raw.
    pub(super) fn meet<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<Role> {
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            let is_pax = kind.is_pax_local_extensions();
            if entry.size() > MAX_HEADER_BYTES {
                *self = Self::TooLong;
                return Ok(Role::Header);
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            if (bytes.len() as u64) < entry.size() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !is_pax {
                while bytes.last() == Some(&0) {
                    bytes.pop();
                }
                *self = Self::Given(bytes);
            } else if let Some(path) = pax_path(&bytes) {
                *self = Self::Given(path);
            }
            return Ok(Role::Header);
        }
        if kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
            return Ok(Role::Header);
        }
        let name = std::mem::take(self);
        Ok(if kind.is_file() || kind.is_contiguous() {
            Role::File(name)
        } else if kind.is_hard_link() || kind.is_symlink() {
            Role::Link(name)
        } else {
            Role::Other
        })
    }
}

fn pax_path(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut extensions = PaxExtensions::new(bytes).flatten();
    let path = extensions.find(|extension| extension.key_bytes() == b"path")?;
    Some(path.value_bytes().to_vec())
}
