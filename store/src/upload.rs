//! Writing one object piece by piece, as its bytes come to be.
//!
//! The object is visible once [`Upload::finish`] has returned, or not at all: an upload that is
//! dropped or killed leaves nothing that a reader could find. What fits into one part is sent as
//! one request at the end; anything larger goes in parts, a few of them on their way at a time.

mod staged;

use std::io;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use object_store::multipart::PartId;
use object_store::path::Path as Key;
use object_store::{Error, MultipartId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::error::StoreError;
use crate::relay::Relay;
use crate::retry::Tried;
use crate::store::{Store, path};
use crate::transfer::Part;
use staged::Staged;

/// Bytes per part: S3 wants at least 5 MiB, and at most 10 000 of them.
pub(crate) const PART: usize = 8 << 20;

/// A disk takes whatever it is given: smaller parts hold less memory.
const PART_LOCAL: usize = 2 << 20;

/// Parts of more than this many already sent are twice as large, then four times, …: 10 000 parts
/// then hold more than the 5 TiB that S3 allows.
const PARTS_OF_ONE_SIZE: usize = 2_000;

/// Pieces shorter than this are copied together rather than kept apart.
const SMALL: usize = 16 << 10;

/// Parts of one upload on their way at a time.
const IN_FLIGHT_REMOTE: usize = 4;
const IN_FLIGHT_LOCAL: usize = 2;
/// Parts of all uploads of this process on their way at a time: what they hold in memory.
const IN_FLIGHT: usize = 8;

/// An object that is being written.
///
/// At most the part being gathered and those on their way are in memory.
pub struct Upload {
    store: Store,
    key: String,
    path: Key,
    filling: Filling,
    digest: Relay<io::Sink>,
    sending: Sending,
    /// A call failed or was broken off, and what was written has a gap.
    has_gap: bool,
}

/// The part being gathered.
#[derive(Default)]
struct Filling {
    whole: Vec<Bytes>,
    /// Where small pieces are copied to.
    tail: BytesMut,
    bytes: usize,
}

enum Sending {
    /// Everything so far fits into one part.
    NotYet,
    /// To the file backend.
    File { staged: Staged, under_way: JoinSet<Result<(), StoreError>> },
    /// To a backend whose parts can be sent again one by one.
    Parts { id: MultipartId, begun: usize, sent: Vec<Option<PartId>>, under_way: JoinSet<SentPart> },
}

type SentPart = Result<(usize, PartId), StoreError>;

impl Filling {
    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        if bytes.len() < SMALL {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.close_tail();
            self.whole.push(bytes);
        }
    }

    fn copy(&mut self, bytes: &[u8], part: usize) {
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            self.close_tail();
            self.tail.reserve(bytes.len().max(part - self.bytes));
        }
        self.tail.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.whole.push(self.tail.split().freeze());
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.close_tail();
        self.bytes = 0;
        std::mem::take(&mut self.whole)
    }
}

impl Store {
    /// Begins to write the object `key`, over whatever is there. Nothing is sent yet.
    pub async fn begin_upload(&self, key: &str) -> Result<Upload, StoreError> {
        Ok(Upload {
            store: self.clone(),
            path: path(key)?,
            key: key.to_owned(),
            filling: Filling::default(),
            digest: Relay::new(io::sink()),
            sending: Sending::NotYet,
            has_gap: false,
        })
    }
}

impl Upload {
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Appends a copy of `bytes`.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let part = self.part_size();
            let (now, later) = bytes.split_at(bytes.len().min(part - self.filling.bytes));
            self.filling.copy(now, part);
            bytes = later;
            if self.filling.bytes == part {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Appends `bytes` without copying them.
    pub async fn write_bytes(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let part = self.part_size();
            let now = bytes.split_to(bytes.len().min(part - self.filling.bytes));
            self.filling.push(now);
            if self.filling.bytes == part {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Makes the object visible and durable.
    pub async fn finish(mut self) -> Result<Part, StoreError> {
        let finished = self.try_finish().await;
        if finished.is_err() {
            // What is left is invisible; the first error is the one to tell.
            let _ = self.clear().await;
        }
        finished
    }

    /// Gives the object up and removes what was sent of it.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        self.clear().await
    }

    fn part_size(&self) -> usize {
        match &self.sending {
            Sending::NotYet | Sending::File { .. } if self.store.local_path("").is_some() => {
                PART_LOCAL
            }
            Sending::NotYet | Sending::File { .. } => PART,
            Sending::Parts { begun, .. } => PART << (begun / PARTS_OF_ONE_SIZE).min(6),
        }
    }

    /// Sends the part that was gathered, waiting while too many are on their way.
    async fn send(&mut self) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.has_gap, true) {
            return Err(self.gap());
        }
        let Self { store, key, path, filling, digest, sending, has_gap } = self;
        let chunks = filling.take();
        digest.digest(&chunks).await.map_err(|error| StoreError::from_io(key.as_str(), error))?;
        if matches!(sending, Sending::NotYet) {
            *sending = Sending::begin(store, key, path).await?;
        }
        match sending {
            Sending::NotYet => unreachable!("it was begun above"),
            Sending::File { staged, under_way } => {
                while under_way.len() >= IN_FLIGHT_LOCAL {
                    joined(key, under_way.join_next().await)?;
                }
                let failed = |key: &str| {
                    let key = key.to_owned();
                    move |error| StoreError::from_io(key, error)
                };
                staged.push().await.map_err(failed(key))?;
                let (room, write, failed) = (room().await, staged.part(chunks), failed(key));
                under_way.spawn(async move {
                    let written = write.await.map_err(failed);
                    drop(room);
                    written
                });
            }
            Sending::Parts { id, begun, sent, under_way } => {
                while under_way.len() >= IN_FLIGHT_REMOTE {
                    let (index, part) = joined(key, under_way.join_next().await)?
                        .expect("as many as are under way can be waited for");
                    sent[index] = Some(part);
                }
                let index = *begun;
                *begun += 1;
                sent.push(None);
                let (store, key, path, id) = (store.clone(), key.clone(), path.clone(), id.clone());
                let payload = chunks.into_iter().collect::<object_store::PutPayload>();
                let room = room().await;
                under_way.spawn(async move {
                    let _room = room;
                    let put = || async {
                        multipart(&store)?.put_part(&path, &id, index, payload.clone()).await
                    };
                    Ok((index, store.repeat(&key, put).await?))
                });
            }
        }
        *has_gap = false;
        Ok(())
    }

    fn gap(&self) -> StoreError {
        let reason = "writing it failed before".to_owned();
        StoreError::Malformed { key: self.key.clone(), reason }
    }

    async fn try_finish(&mut self) -> Result<Part, StoreError> {
        if self.has_gap {
            return Err(self.gap());
        }
        if matches!(self.sending, Sending::NotYet) {
            let chunks = self.filling.take();
            self.digest
                .digest(&chunks)
                .await
                .map_err(|error| StoreError::from_io(&self.key, error))?;
            self.store.put_payload(&self.key, chunks.into_iter().collect()).await?;
            return self.part().await;
        }
        if self.filling.bytes > 0 {
            self.send().await?;
        }
        let part = self.part().await?;
        let Self { store, key, path, sending, .. } = self;
        match sending {
            Sending::NotYet => unreachable!("it was finished above"),
            Sending::File { staged, under_way } => {
                while joined(key, under_way.join_next().await)?.is_some() {}
                let finished = staged.finish().await;
                finished.map_err(|error| StoreError::from_io(key.as_str(), error))?;
            }
            Sending::Parts { id, sent, under_way, .. } => {
                while let Some((index, part)) = joined(key, under_way.join_next().await)? {
                    sent[index] = Some(part);
                }
                let parts: Vec<PartId> = sent.iter().flatten().cloned().collect();
                complete(store, key, path, id, &parts, part.bytes).await?;
            }
        }
        *sending = Sending::NotYet;
        Ok(part)
    }

    /// What the manifest will say about the object.
    async fn part(&mut self) -> Result<Part, StoreError> {
        let digest = std::mem::replace(&mut self.digest, Relay::new(io::sink()));
        let (_, bytes, sha256) =
            digest.finish().await.map_err(|error| StoreError::from_io(&self.key, error))?;
        let name = self.key.rsplit('/').next().unwrap_or(&self.key).to_owned();
        Ok(Part { name, bytes, sha256 })
    }

    async fn clear(&mut self) -> Result<(), StoreError> {
        let Self { store, key, path, sending, .. } = self;
        match std::mem::replace(sending, Sending::NotYet) {
            Sending::NotYet => Ok(()),
            Sending::File { staged, mut under_way } => {
                under_way.shutdown().await;
                staged.abort().await.map_err(|error| StoreError::from_io(key.as_str(), error))
            }
            Sending::Parts { id, mut under_way, .. } => {
                under_way.shutdown().await;
                let abort = async || multipart(store)?.abort_multipart(path, &id).await;
                match store.repeat(key, abort).await {
                    // An earlier try whose answer was lost has done it.
                    Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

impl Sending {
    async fn begin(store: &Store, key: &str, path: &Key) -> Result<Self, StoreError> {
        if let Some(place) = store.local_path(key) {
            let staged = Staged::begin(place).await;
            let staged = staged.map_err(|error| StoreError::from_io(key, error))?;
            return Ok(Self::File { staged, under_way: JoinSet::new() });
        }
        let create = async || multipart(store)?.create_multipart(path).await;
        let id = store.repeat(key, create).await?;
        Ok(Self::Parts { id, begun: 0, sent: Vec::new(), under_way: JoinSet::new() })
    }
}

/// Waits until one more part may be on its way.
async fn room() -> OwnedSemaphorePermit {
    static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(IN_FLIGHT)));
    Arc::clone(&ROOM).acquire_owned().await.expect("it is never closed")
}

/// Puts the parts together.
///
/// If an answer was lost, the next try finds no such upload: then the object is ours if it is a
/// version of our length that was not there before.
async fn complete(
    store: &Store,
    key: &str,
    path: &Key,
    id: &MultipartId,
    parts: &[PartId],
    bytes: u64,
) -> Result<(), StoreError> {
    let before = store.version(key).await?;
    let complete = async || multipart(store)?.complete_multipart(path, id, parts.to_vec()).await;
    let Tried { result, in_doubt } = store.retrier.run(complete).await;
    match result {
        Ok(_) => Ok(()),
        Err(error @ Error::NotFound { .. }) if in_doubt => {
            let now = store.version(key).await?;
            let is_ours = now.as_ref().is_some_and(|now| now.bytes == bytes) && now != before;
            if is_ours { Ok(()) } else { Err(store.error(key, error)) }
        }
        Err(error) => Err(store.error(key, error)),
    }
}

fn multipart(store: &Store) -> object_store::Result<&dyn object_store::multipart::MultipartStore> {
    store.opened.multipart.as_deref().ok_or_else(|| Error::NotImplemented {
        operation: "parts".to_owned(),
        implementer: store.uri().to_owned(),
    })
}

/// The outcome of a task that ended, if there was one.
fn joined<T>(
    key: &str,
    ended: Option<Result<Result<T, StoreError>, tokio::task::JoinError>>,
) -> Result<Option<T>, StoreError> {
    match ended {
        None => Ok(None),
        Some(Ok(outcome)) => outcome.map(Some),
        Some(Err(error)) => Err(StoreError::from_io(key, io::Error::other(error))),
    }
}
