//! Artefacts, manifests and checkpoints: everything a run leaves behind, over one object store.
//!
//! Two rules hold for all of it. An artefact exists once the manifest that names it exists, so the
//! manifest is written last; and a manifest is created, never overwritten. Every write is durable
//! (data and folder synced) before the call returns, so a manifest on disk implies its parts.
//!
//! Nothing here knows what a training step or a picture is.

mod answer;
mod backend;
mod buckets;
mod check;
pub mod checkpoint;
#[cfg(test)]
mod conformance;
pub mod data;
mod digest;
mod error;
pub mod inputs;
pub mod keys;
mod options;
mod reader;
mod relay;
mod retry;
mod store;
mod transfer;
mod upload;

pub use buckets::Buckets;
pub use checkpoint::CheckpointManifest;
pub use data::{DataManifest, DataShard, ForeignShard};
pub use digest::{Hashing, digest};
pub use error::StoreError;
pub use inputs::{InputTar, Inputs, InputsError, find_inputs, find_inputs_in};
pub use options::{Retry, StoreOptions};
pub use reader::{ObjectReader, ReaderOptions};
pub use store::{Entry, Store, Version};
pub use transfer::Part;
pub use upload::Upload;
