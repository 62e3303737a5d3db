//! What an evaluate job leaves behind.
//!
//! `<kind>-<index>.safetensors` holds the features of one set and `<kind>-<index>.json` its words.
//!
//! | kind | arrays |
//! |---|---|
//! | classification | `image_features` `[pictures, embed]`, `class_features` `[classes, embed]`, `labels` i64 `[pictures]` |
//! | retrieval | `image_features` `[pictures, embed]`, `text_features` `[captions, embed]`, `pairs` i64 `[pairs, 2]`: picture, caption |
//!
//! Features are unit rows. The captions of a retrieval set are its *different* captions: noisy
//! captions repeat (one may stand under hundreds of pictures), and an equal caption is an equally
//! right answer. The words files are the same for every model.

use std::collections::BTreeMap;
use std::fmt;

use clade_core::ids::{CheckpointRef, Digest, Incarnation};
use clade_store::Part;
use serde::{Deserialize, Serialize};

use crate::context::Counts;
use crate::stages::commit::JobManifest;

/// What an evaluation set asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SetKind {
    Classification,
    Retrieval,
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classification => "classification",
            Self::Retrieval => "retrieval",
        })
    }
}

/// Says that one model's features of all sets are complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EvaluateManifest {
    pub(crate) model: CheckpointRef,
    /// Which try's folder the files lie in.
    pub(crate) incarnation: Incarnation,
    pub(crate) sets: Vec<SetArtefact>,
    /// Pixels, token ids and features of a few pictures and texts.
    pub(crate) check: Option<Part>,
    pub(crate) seed: u64,
    /// Digest of the run's `spec.json`.
    pub(crate) spec: Digest,
    pub(crate) code_version: String,
    pub(crate) counts: Counts,
}

/// One evaluation set, encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetArtefact {
    pub(crate) kind: SetKind,
    /// Position among the run document's sets of this kind.
    pub(crate) index: u32,
    /// Last component of the set's path.
    pub(crate) name: String,
    pub(crate) features: Part,
    pub(crate) texts: Part,
    pub(crate) pictures: u64,
    /// Classes or different captions.
    pub(crate) texts_count: u64,
    /// Pictures left out, by cause.
    pub(crate) unusable: BTreeMap<String, u64>,
    /// The first of them.
    pub(crate) examples: Vec<Unusable>,
    /// Digests of the tars read, in order.
    pub(crate) tars: Vec<Digest>,
}

/// A picture that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unusable {
    pub(crate) key: String,
    pub(crate) cause: String,
}

/// The words of a classification set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClassTexts {
    pub(crate) classes: Vec<String>,
    /// `{c}` stands for the class name.
    pub(crate) templates: Vec<String>,
    /// Of each picture.
    pub(crate) keys: Vec<String>,
}

/// The words of a retrieval set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CaptionTexts {
    /// Different captions, in order of first appearance.
    pub(crate) captions: Vec<String>,
    /// Of each picture.
    pub(crate) keys: Vec<String>,
}

impl JobManifest for EvaluateManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}
