//! Writes the tar of a shard, telling where each member's bytes lie.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use clade_store::Hashing;
use tar::{Builder, Header};

const BLOCK: u64 = 512;

/// A tar in the making. The same members give the same bytes.
pub(crate) struct TarFile {
    path: PathBuf,
    builder: Builder<Hashing<BufWriter<File>>>,
}

impl TarFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self { path: path.to_owned(), builder: Builder::new(Hashing::new(file)) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.builder.get_ref().bytes()
    }

    /// Appends a member and returns where its content starts.
    pub(crate) fn append(&mut self, name: &str, content: &[u8]) -> io::Result<u64> {
        let length = content.len() as u64;
        let mut header = Header::new_gnu();
        header.set_size(length);
        header.set_mode(0o644);
        self.builder.append_data(&mut header, name, content)?;
        Ok(self.bytes() - length.next_multiple_of(BLOCK))
    }

    /// Ends the tar.
    pub(crate) fn finish(self) -> io::Result<()> {
        let writer = self.builder.into_inner()?;
        let (buffer, _, _) = writer.finish();
        buffer.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }
}
