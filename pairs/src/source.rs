//! A tar to read from: a file, or an object of a store.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use clade_core::job::Failure;
use clade_store::{ObjectReader, Store, StoreError};
use tokio::runtime::Handle;

/// Of a larger tar the page cache would lose the beginning before its end is there.
const WANTED: u64 = 512 << 20;

/// A tar that can be read from start to end and at any place.
pub enum Source {
    File {
        name: String,
        file: File,
    },
    /// A copy of an object in the cache.
    Copy {
        file: File,
    },
    /// `name` is its whole address.
    Object {
        name: String,
        store: Store,
        key: String,
        runtime: Handle,
    },
}

/// What tells one version of a tar from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub bytes: u64,
    version: String,
}

impl Source {
    /// Opens an input tar by its address: a path, `file:`, or the address of an object.
    pub fn open_input(uri: &str, runtime: &Handle) -> Result<Self, Failure> {
        match uri.split_once("://") {
            None => Self::open_file(Path::new(uri.strip_prefix("file:").unwrap_or(uri))),
            Some(("file", path)) => Self::open_file(Path::new(path)),
            Some(_) => {
                let (store, key) = Store::open_object(uri)?;
                let (name, runtime) = (uri.to_owned(), runtime.clone());
                Ok(Self::Object { name, store, key, runtime })
            }
        }
    }

    fn open_file(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| input_error(path, error))?;
        Ok(Self::File { name: path.display().to_string(), file })
    }

    /// Size and version as they are now.
    pub fn stamp(&self) -> Result<Stamp, Failure> {
        match self {
            Self::File { file, .. } | Self::Copy { file } => {
                let meta = file.metadata().map_err(|error| StoreError::from_io("a tar", error))?;
                let version = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
                Ok(Stamp { bytes: meta.len(), version })
            }
            Self::Object { name, store, key, runtime } => {
                let version = runtime.block_on(store.version(key))?;
                let version = version.ok_or_else(|| missing(name))?;
                Ok(Stamp { bytes: version.bytes, version: version.tag })
            }
        }
    }

    /// Reads from the first byte to the last.
    pub fn stream(&self) -> Result<Box<dyn Read + Send + '_>, Failure> {
        match self {
            Self::File { file, .. } | Self::Copy { file } => {
                let file = file.try_clone().map_err(|error| StoreError::from_io("a tar", error))?;
                self.in_order();
                Ok(Box::new(FileStream { file, at: 0 }))
            }
            Self::Object { name, store, key, runtime } => {
                let reader = runtime.block_on(store.reader(key, ..));
                let reader = reader.map_err(|error| {
                    if matches!(error, StoreError::NotFound { .. }) {
                        missing(name)
                    } else {
                        error.into()
                    }
                })?;
                Ok(Box::new(ObjectStream { reader, runtime, chunk: Bytes::new() }))
            }
        }
    }

    /// Fills `into` from `offset` on. An end before that is `UnexpectedEof`.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File { file, .. } | Self::Copy { file } => file.read_exact_at(into, offset),
            Self::Object { store, key, runtime, .. } => {
                let range = offset..offset + into.len() as u64;
                let bytes = runtime.block_on(store.get_range(key, range));
                match bytes {
                    Ok(bytes) => into.copy_from_slice(&bytes),
                    Err(StoreError::Malformed { .. }) => {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
                Ok(())
            }
        }
    }

    /// Reads some bytes from `offset` on; none at the end.
    pub fn read_some(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File { file, .. } | Self::Copy { file } => file.read_at(into, offset),
            Self::Object { store, key, runtime, .. } => {
                let size = runtime.block_on(store.size(key)).map_err(io::Error::other)?;
                let rest = size.unwrap_or(0).saturating_sub(offset);
                let part = into.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                self.read_at(offset, &mut into[..part]).map(|()| part)
            }
        }
    }

    /// Tells the machine that it will be read from front to back.
    pub fn in_order(&self) {
        if let Self::File { file, .. } | Self::Copy { file } = self {
            ahead(file, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
        }
    }

    /// Tells the machine that it is wanted soon: all of it, unless it is large.
    pub fn want(&self) {
        if let Self::File { file, .. } | Self::Copy { file } = self
            && file.metadata().is_ok_and(|meta| meta.len() <= WANTED)
        {
            ahead(file, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }
}

/// Advice to the page cache, which may not be taken.
fn ahead(file: &File, advice: nix::fcntl::PosixFadviseAdvice) {
    let _ = nix::fcntl::posix_fadvise(file, 0, 0, advice);
}

/// A file from its start, whoever else reads it.
struct FileStream {
    file: File,
    at: u64,
}

impl Read for FileStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

struct ObjectStream<'a> {
    reader: ObjectReader,
    runtime: &'a Handle,
    chunk: Bytes,
}

impl Read for ObjectStream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.reader.next()) {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let part = into.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut into[..part]);
        Ok(part)
    }
}

fn missing(name: &str) -> Failure {
    Failure::Data { message: format!("input tar {name} does not exist any more") }
}

/// What a failure of reading an input means: a missing one is the user's to mend; anything else may pass.
pub fn input_error(path: &Path, error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::NotFound {
        return missing(&path.display().to_string());
    }
    match error.downcast::<StoreError>() {
        Ok(error) => error.into(),
        Err(error) => StoreError::from_io(path.display().to_string(), error).into(),
    }
}

/// The path of an input that is a file.
pub fn local(uri: &str) -> Option<PathBuf> {
    match uri.split_once("://") {
        None => Some(uri.strip_prefix("file:").unwrap_or(uri).into()),
        Some(("file", path)) => Some(path.into()),
        Some(_) => None,
    }
}
