//! The report as data: what `report.json` holds, field by field.
//!
//! Shares run from 0 to 1. Nothing here depends on when or where the run was made, so equal runs
//! give equal reports.

use std::collections::BTreeMap;

use clade_core::ids::{Digest, ModelId, RunName, Step};
use clade_core::routing::Weights;
use serde::{Deserialize, Serialize};

use super::scores::Recall;
use super::words::Word;

/// Counts up when a field changes its meaning.
pub(crate) const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) run: RunName,
    /// Of the run; every row comes from this one seed.
    pub(crate) seed: u64,
    /// Digest of the run's `spec.json`.
    pub(crate) spec: Digest,
    pub(crate) code_version: String,
    pub(crate) preset: String,
    /// Pairs per step.
    pub(crate) global_batch: u32,
    pub(crate) fine_clusters: u32,
    pub(crate) experts: u32,
    /// λ of the paper's routing rules.
    pub(crate) lambda: f64,
    pub(crate) models: Vec<ModelFacts>,
    pub(crate) clusters: Vec<ClusterFacts>,
    pub(crate) classification: Vec<ClassificationReport>,
    pub(crate) retrieval: Vec<RetrievalReport>,
    /// What a reader must know before comparing rows.
    pub(crate) notes: Vec<String>,
}

/// One model and how it was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelFacts {
    pub(crate) model: ModelId,
    /// Updates, counted from the seed model's first.
    pub(crate) step: Step,
    /// Steps of its own: without the seed's for a model that goes on from it.
    pub(crate) own_steps: u64,
    /// Pairs passed through in its own steps.
    pub(crate) own_pairs: u64,
    /// The same and the seed's.
    pub(crate) pairs_trained_on: u64,
    /// Mean training loss over its last recorded steps, in nats; absent without metrics.
    pub(crate) final_loss: Option<f64>,
    /// How many steps that mean is over.
    pub(crate) final_loss_steps: u64,
}

/// One expert's share of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterFacts {
    pub(crate) model: ModelId,
    pub(crate) pairs: u64,
    /// Of all experts' pairs.
    pub(crate) share: f64,
    pub(crate) fine_clusters: u32,
    /// The most telling first.
    pub(crate) words: Vec<Word>,
}

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum RowKind {
    /// One model by itself.
    Model,
    /// The expert that scored best on this very set: chosen with hindsight.
    BestExpert,
    /// All experts with equal weights.
    Uniform,
    /// All experts, weighted by the paper's rule.
    Paper,
    /// All experts, weighted by the reference code's rule.
    Code,
}

/// Who scored, and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subject {
    pub(crate) kind: RowKind,
    pub(crate) name: String,
    pub(crate) models: Vec<ModelId>,
    /// Pairs passed through in training by all models of the row together, the seed's counted once.
    pub(crate) pairs_trained_on: u64,
    /// Picture encoders run per picture.
    pub(crate) encoder_passes: u32,
}

/// The experts' weights, and how undecided they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Routed {
    /// One per expert; sums to 1.
    pub(crate) weights: Vec<f64>,
    /// In nats.
    pub(crate) entropy: f64,
    /// Entropy as a share of ln n.
    pub(crate) evenness: f64,
}

impl From<Weights> for Routed {
    fn from(Weights { weights, entropy, evenness }: Weights) -> Self {
        Self { weights, entropy, evenness }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClassificationReport {
    /// Position among the run document's sets.
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) pictures: u64,
    pub(crate) classes: u64,
    /// Pictures left out, by cause.
    pub(crate) unusable: BTreeMap<String, u64>,
    /// Top-1 of guessing evenly.
    pub(crate) chance: f64,
    pub(crate) rows: Vec<ClassificationRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClassificationRow {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    pub(crate) top1: f64,
    pub(crate) top5: f64,
    /// Mean recall of the classes that have pictures.
    pub(crate) balanced: f64,
    /// One binomial standard deviation of top-1 over this many pictures.
    pub(crate) top1_spread: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) routed: Option<Routed>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetrievalReport {
    /// Position among the run document's sets.
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) pictures: u64,
    /// Different captions.
    pub(crate) captions: u64,
    /// Pictures left out, by cause.
    pub(crate) unusable: BTreeMap<String, u64>,
    pub(crate) rows: Vec<RetrievalRow>,
    pub(crate) by_cluster: ByCluster,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetrievalRow {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    pub(crate) image_to_text: Recall,
    pub(crate) text_to_image: Recall,
    /// Image→text: one weight vector for the whole corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) routed: Option<Routed>,
    /// Text→image: the mean over the queries' own weights, entropies and evennesses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) routed_queries: Option<Routed>,
}

/// Each model on the held-out pairs of each cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ByCluster {
    /// Held-out pairs per cluster: one caption per picture, as in training's assignment.
    pub(crate) pairs: Vec<u64>,
    pub(crate) rows: Vec<ByClusterRow>,
    /// One per cluster that has held-out pairs.
    pub(crate) diagonal: Vec<Diagonal>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ByClusterRow {
    pub(crate) model: ModelId,
    /// One per cluster; none where it has no held-out pairs.
    pub(crate) cells: Vec<Option<Cell>>,
}

/// R@1 within one cluster's pairs: the others are not among the answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cell {
    pub(crate) image_to_text: f64,
    pub(crate) text_to_image: f64,
    /// Of both directions.
    pub(crate) mean: f64,
}

/// Whether a cluster's own expert is the best of the experts on it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Diagonal {
    pub(crate) cluster: ModelId,
    /// The best expert by the mean of both directions; on a tie the cluster's own, then the lower.
    pub(crate) best: ModelId,
    pub(crate) wins: bool,
    /// Own expert's mean less that of the best other one; absent if there is no other.
    pub(crate) margin: Option<f64>,
}
