//! What a model trains on: the list of its shards.
//!
//! The catalogue (seed and dense model) and each expert's shards have the same form. The order of
//! data is drawn from a manifest's digest, so a manifest never changes once a model has read it.

use std::collections::BTreeMap;

use clade_core::ids::Digest;
use serde::{Deserialize, Serialize};

/// The pairs of one model, shard by shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataManifest {
    pub pairs: u64,
    pub shards: Vec<DataShard>,
    /// Digests of the manifests this one was made from.
    pub inputs: Vec<Digest>,
    pub seed: u64,
    pub code_version: String,
    /// Counts for people: `pairs`, `unusable.emptyCaption`, …
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}

/// One tar of pairs and its index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataShard {
    /// An absolute path, or a store key if `in_store`.
    pub tar: String,
    pub in_store: bool,
    /// Store key of the Parquet index: one row per usable pair.
    pub index: String,
    pub pairs: u32,
    /// Bytes of the tar.
    pub bytes: u64,
    /// Digest of the tar, where it is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    pub index_sha256: Digest,
}
