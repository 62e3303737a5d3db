//! What a model trains on: the list of its shards.
//!
//! The catalogue (seed and dense model) and each expert's shards have the same form. The order of
//! data is drawn from the digest of a manifest's content: what the pairs are, not where they lie, so
//! that a dataset that was moved, or a stage that was tried twice, gives the same order.

use std::collections::BTreeMap;

use clade_core::ids::Digest;
use serde::{Deserialize, Serialize};

/// The pairs of one model, shard by shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataManifest {
    pub pairs: u64,
    pub shards: Vec<DataShard>,
    /// The run's pool of foreign pairs as this model sees it; empty without `oocRatio`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<ForeignShard>,
    /// Digests of the manifests this one was made from.
    pub inputs: Vec<Digest>,
    pub seed: u64,
    pub code_version: String,
    /// Counts for people: `pairs`, `unusable.emptyCaption`, …
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}

impl DataManifest {
    /// Digest of the pairs in their order, wherever their tars and indexes lie.
    pub fn content(&self) -> Digest {
        let mut all = Vec::with_capacity(self.shards.len() * 36);
        for shard in &self.shards {
            all.extend_from_slice(&shard.pairs.to_le_bytes());
            all.extend_from_slice(&shard.index_sha256.0);
        }
        for ForeignShard { shard, by_pass } in &self.foreign {
            all.extend_from_slice(b"foreign");
            all.extend(by_pass.iter().flat_map(|pairs| pairs.to_le_bytes()));
            all.extend_from_slice(&shard.index_sha256.0);
        }
        crate::digest(&all)
    }
}

/// A shard of the pool that all experts share, and what of it is foreign to one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignShard {
    pub shard: DataShard,
    /// Pairs of each pass that are not the model's own.
    pub by_pass: Vec<u32>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(tar: &str, index: u8) -> DataManifest {
        let shard = DataShard {
            tar: tar.to_owned(),
            in_store: false,
            index: format!("{tar}.parquet"),
            pairs: 3,
            bytes: 9,
            sha256: None,
            index_sha256: Digest([index; 32]),
        };
        DataManifest {
            pairs: 3,
            shards: vec![shard],
            foreign: vec![],
            inputs: vec![],
            seed: 7,
            code_version: "0".to_owned(),
            counts: BTreeMap::new(),
        }
    }

    #[test]
    fn content_is_what_the_pairs_are_and_not_where_they_lie() {
        assert_eq!(manifest("/a/0.tar", 1).content(), manifest("/b/0.tar", 1).content());
        assert_ne!(manifest("/a/0.tar", 1).content(), manifest("/a/0.tar", 2).content());
    }
}
