//! Reads single pictures out of the tars of a manifest.
//!
//! A tar of ours is proved by its digest when first opened. An input tar is somebody else's file:
//! it must still have the size it was indexed with.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use clade_core::ids::Digest;
use clade_core::job::Failure;
use clade_store::{DataShard, Hashing, Store, StoreError};
use tokio::runtime::Handle;

/// Tars held open at a time.
const OPEN: usize = 64;

/// The tars of one manifest.
pub(crate) struct Shelf {
    store: Store,
    runtime: Handle,
    shards: Vec<DataShard>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Newest use last.
    open: VecDeque<(u32, Arc<Source>)>,
    proved: BTreeSet<u32>,
}

enum Source {
    File(File),
    /// A store without a folder: each read is a request.
    Object,
}

impl Shelf {
    pub(crate) fn new(store: Store, runtime: Handle, shards: Vec<DataShard>) -> Self {
        Self { store, runtime, shards, state: Mutex::default() }
    }

    pub(crate) fn shard(&self, index: u32) -> &DataShard {
        &self.shards[index as usize]
    }

    /// The bytes of a picture.
    pub(crate) fn read(&self, shard: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let source = self.source(shard)?;
        let tar = &self.shard(shard).tar;
        match &*source {
            Source::File(file) => {
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, offset)
                    .map_err(|error| StoreError::from_io(tar, error))?;
                Ok(bytes)
            }
            Source::Object => {
                let range = offset..offset + u64::from(length);
                Ok(self.runtime.block_on(self.store.get_range(tar, range))?.to_vec())
            }
        }
    }

    fn source(&self, shard: u32) -> Result<Arc<Source>, Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = state.open.iter().position(|(number, _)| *number == shard) {
            let found = state.open.remove(at).expect("its position was just found");
            let source = Arc::clone(&found.1);
            state.open.push_back(found);
            return Ok(source);
        }
        let source = Arc::new(self.open(shard, !state.proved.contains(&shard))?);
        state.proved.insert(shard);
        if state.open.len() >= OPEN {
            state.open.pop_front();
        }
        state.open.push_back((shard, Arc::clone(&source)));
        Ok(source)
    }

    fn open(&self, shard: u32, prove: bool) -> Result<Source, Failure> {
        let DataShard { tar, in_store, bytes, sha256, .. } = self.shard(shard);
        if !in_store {
            return open_input(Path::new(tar), *bytes).map(Source::File);
        }
        let Some(path) = self.store.local_path(tar) else {
            return Ok(Source::Object);
        };
        let unreadable = |error| StoreError::from_io(tar, error);
        let mut file = File::open(path).map_err(unreadable)?;
        if let Some(expected) = sha256.filter(|_| prove) {
            let found = digest_of(&mut file).map_err(unreadable)?;
            if found != expected {
                return Err(StoreError::Damaged { key: tar.clone(), expected, found }.into());
            }
        }
        Ok(Source::File(file))
    }
}

fn digest_of(file: &mut File) -> io::Result<Digest> {
    let mut reader = Hashing::new(io::BufReader::with_capacity(1 << 20, file));
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.finish().2)
}

/// Opens an input tar, unless it is gone or is not the file that was indexed.
pub(crate) fn open_input(path: &Path, bytes: u64) -> Result<File, Failure> {
    let name = path.display();
    let file = File::open(path).map_err(|error| input_error(path, error))?;
    let found = file.metadata().map_err(|error| input_error(path, error))?.len();
    if found == bytes {
        Ok(file)
    } else {
        Err(Failure::Data {
            message: format!(
                "input tar {name} has changed since it was indexed: it had {bytes} bytes and has \
                 {found}; put it back, or start a new run"
            ),
        })
    }
}

/// A missing input is the user's to mend; anything else may pass.
pub(crate) fn input_error(path: &Path, error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::NotFound {
        let message = format!("input tar {} does not exist any more", path.display());
        Failure::Data { message }
    } else {
        StoreError::from_io(path.display().to_string(), error).into()
    }
}
