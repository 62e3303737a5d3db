//! The run document: what one run is, as its user writes it (`apiVersion: clade/v1`, `kind: Run`).
//!
//! [`RunSpec::parse`] is the only way in from text: whatever comes out of it obeys every rule
//! that can be judged without looking at the data.

mod length;
mod message;
mod steps;
mod units;
mod validate;
mod widths;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ModelId, RunName, Step};

pub use message::SpecError;
pub use units::{Count, Share, Span};
pub use widths::all_widths;

/// Bytes of the longest document: it is kept whole in one row of the state.
const LONGEST: usize = 256 << 10;

/// One run: a dataset taken from index to bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunSpec {
    pub api_version: ApiVersion,
    pub kind: Kind,
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVersion {
    #[serde(rename = "clade/v1")]
    V1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Run,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub name: RunName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Every random choice derives from it.
    #[serde(default)]
    pub seed: u64,
    /// Where artefacts go: `file:` and a path, or a bucket: `s3://bucket/prefix`, `gs://…`, `az://…`.
    pub store: String,
    pub dataset: Dataset,
    pub embedding: Embedding,
    pub clusters: Clusters,
    pub model: Model,
    pub training: Training,
    #[serde(default)]
    pub gangs: Gangs,
    /// Runs of a higher priority are seated first, and may ask lower ones' gangs to save and leave.
    #[serde(default)]
    pub priority: i32,
    pub evaluation: Evaluation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataset {
    /// WebDataset tars, on disk or in a bucket: a path, a glob, or a brace pattern such as
    /// `{000000..000041}.tar`.
    pub shards: String,
    /// Pictures of more pixels are not decoded.
    #[serde(default = "default_max_pixels")]
    pub max_pixels: Count,
    /// Above this share of unusable pairs the run stops with the list.
    #[serde(default = "default_max_bad_share")]
    pub max_bad_share: Share,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Embedding {
    /// Folder of a BERT-family sentence encoder: `config.json`, `model.safetensors`, `tokenizer.json`.
    pub encoder: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Clusters {
    /// m: number of fine centres.
    pub fine: u32,
    /// n: number of experts.
    pub experts: u32,
    #[serde(default)]
    pub metric: Metric,
    /// The largest fine cluster is at most (1 + balance) · N/m on the sample.
    #[serde(default = "default_balance")]
    pub balance: f64,
    /// Pairs drawn for finding the centres.
    #[serde(default = "default_sample")]
    pub sample: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    #[default]
    Spherical,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// `tiny`, `small`, `ViT-B-32`, …: the presets of clade-model.
    pub preset: String,
    #[serde(default)]
    pub precision: Precision,
    /// The CLIP BPE merges, `bpe_simple_vocab_16e6.txt.gz`.
    #[serde(default = "default_vocabulary")]
    pub vocabulary: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Precision {
    #[default]
    F32,
    /// bf16 compute over f32 master weights.
    Bf16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Training {
    /// Pairs per step: the negative pool, so part of the loss; no resize changes it.
    pub global_batch: u32,
    /// Pairs per forward pass of one rank; the global batch is K of these.
    pub micro_batch: u32,
    /// Keep only the blocks' inputs between the passes and compute the rest twice: less memory for
    /// a third more work.
    #[serde(default)]
    pub recompute: bool,
    pub seed_steps: u64,
    pub expert_steps: ExpertSteps,
    /// Share of all pairs that each pass over an expert's own is seasoned with, less those that are
    /// its own anyway (2 % in the reference code).
    #[serde(default)]
    pub ooc_ratio: Share,
    pub learning_rate: LearningRate,
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    #[serde(default)]
    pub checkpoint: CheckpointPolicy,
    #[serde(default)]
    pub baselines: Vec<Baseline>,
}

/// How long experts train, in steps after the seed's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ExpertSteps {
    /// The same number for every expert, as in the paper.
    Equal(u64),
    /// So many pairs over all experts together, divided by the pairs of each.
    Proportional { proportional: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LearningRate {
    pub peak: f64,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup: u64,
    #[serde(default)]
    pub schedule: LrSchedule,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LrSchedule {
    #[default]
    Cosine,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckpointPolicy {
    /// The longest time between two checkpoints of a model. It is shorter where that loses less: Young's
    /// interval for what a checkpoint was measured to cost, and for how often seats fail.
    #[serde(default = "default_checkpoint_every")]
    pub every: Span,
    /// Share of the seats that fail in a day, for as long as the coordinator has seen no better.
    #[serde(default = "default_failures_per_day", skip_serializing_if = "is_usual")]
    pub failures_per_day: Share,
    /// Newest checkpoints kept per model.
    #[serde(default = "default_checkpoint_keep")]
    pub keep: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Baseline {
    Dense,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gangs {
    #[serde(default)]
    pub seed: Gang,
    #[serde(default)]
    pub expert: Gang,
    #[serde(default)]
    pub jobs: Jobs,
}

/// How the jobs of the stages are seated: one rank each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Jobs {
    pub requires: Requires,
}

/// What a seat must offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Requires {
    /// Part of the device's name, such as `H100`; `cpu` for seats without a GPU. Any if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Device memory, at least so much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gib: Option<u32>,
    /// Labels that the worker was started with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How a model's gang is formed and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gang {
    pub ranks: u32,
    /// With fewer seats than `ranks` but at least so many it trains, too, on a part of them that keeps
    /// the batch. All of `ranks` or nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_ranks: Option<u32>,
    /// Restarts by its own fault without a new checkpoint before the model is given up.
    pub restarts: u32,
    /// Gangs that may end without a new checkpoint, by whosever fault, before the model is given up.
    pub fruitless: u32,
    pub backoff: Backoff,
    /// Time a rank has to save and leave before it is killed.
    pub grace: Span,
    #[serde(skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backoff {
    pub from: Span,
    pub to: Span,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evaluation {
    /// Folders in CLIP_benchmark's zero-shot layout.
    #[serde(default)]
    pub classification: Vec<String>,
    /// Folders in CLIP_benchmark's retrieval layout.
    #[serde(default)]
    pub retrieval: Vec<String>,
    #[serde(default)]
    pub routing: Routing,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Routing {
    pub rules: Vec<RoutingRule>,
    /// λ of the paper's rule.
    pub lambda: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoutingRule {
    Paper,
    Code,
}

impl Default for Gang {
    fn default() -> Self {
        Self {
            ranks: 1,
            min_ranks: None,
            restarts: 5,
            fruitless: 30,
            backoff: Backoff { from: Span::from_millis(1_000), to: Span::from_millis(60_000) },
            grace: Span::from_millis(20_000),
            requires: Requires::default(),
        }
    }
}

impl Requires {
    /// Whether any seat will do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Requires {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gpu, memory_gib, labels } = self;
        let gpu = gpu.iter().map(|gpu| format!("gpu {gpu}"));
        let memory = memory_gib.iter().map(|memory| format!("{memory} GiB of device memory"));
        let labels = labels.iter().map(|(key, value)| format!("label {key}={value}"));
        f.write_str(&gpu.chain(memory).chain(labels).collect::<Vec<_>>().join(", "))
    }
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            every: default_checkpoint_every(),
            failures_per_day: default_failures_per_day(),
            keep: default_checkpoint_keep(),
        }
    }
}

impl Default for Routing {
    fn default() -> Self {
        Self { rules: vec![RoutingRule::Paper, RoutingRule::Code], lambda: 0.2 }
    }
}

const fn default_max_pixels() -> Count {
    Count(64_000_000)
}
const fn default_max_bad_share() -> Share {
    Share(0.05)
}
const fn default_balance() -> f64 {
    0.1
}
const fn default_sample() -> u64 {
    100_000
}
fn default_vocabulary() -> String {
    "assets/clip-bpe/bpe_simple_vocab_16e6.txt.gz".to_owned()
}
const fn default_weight_decay() -> f64 {
    0.1
}
const fn default_checkpoint_every() -> Span {
    Span::from_millis(600_000)
}
fn is_usual(failures_per_day: &Share) -> bool {
    *failures_per_day == default_failures_per_day()
}
/// Interruptions by hardware and others per GPU and day, as published for large fleets.
pub(crate) const fn default_failures_per_day() -> Share {
    Share(0.0027)
}
const fn default_checkpoint_keep() -> u32 {
    3
}

impl RunSpec {
    /// Reads a run document and judges it.
    pub fn parse(document: &str) -> Result<Self, SpecError> {
        if document.len() > LONGEST {
            return Err(SpecError::TooLong { most: LONGEST });
        }
        let spec: Self =
            serde_saphyr::from_str(document).map_err(|error| message::explain(&error, document))?;
        spec.validate().map_err(SpecError::Rule)?;
        spec.check_length()?;
        Ok(spec)
    }

    /// Whether it is short enough to be kept. Aliases in a document, and a long folder that its paths
    /// are resolved against, make it longer than its text.
    pub fn check_length(&self) -> Result<(), SpecError> {
        length::fits(self, LONGEST).then_some(()).ok_or(SpecError::TooLong { most: LONGEST })
    }

    pub const fn name(&self) -> &RunName {
        &self.metadata.name
    }

    /// Every model of the run, the seed first.
    pub fn models(&self) -> Vec<ModelId> {
        let mut models = vec![ModelId::Seed];
        if self.spec.training.baselines.contains(&Baseline::Dense) {
            models.push(ModelId::Dense);
        }
        models.extend((0..self.spec.clusters.experts).map(ModelId::Expert));
        models
    }

    /// The gang settings of `model`. The dense baseline is seated as one expert is.
    pub const fn gang(&self, model: ModelId) -> &Gang {
        match model {
            ModelId::Seed => &self.spec.gangs.seed,
            ModelId::Dense | ModelId::Expert(_) => &self.spec.gangs.expert,
        }
    }

    /// The step at which `model` is done, counted from the seed model's first.
    ///
    /// `pairs[i]` is the number of pairs of expert i. Only proportional steps ask for it; the
    /// dense baseline gets the mean of the experts' steps.
    pub fn due(&self, model: ModelId, pairs: &[u64]) -> Step {
        let training = &self.spec.training;
        let seed = training.seed_steps;
        let experts = u64::from(self.spec.clusters.experts.max(1));
        let after = match (model, training.expert_steps) {
            (ModelId::Seed, _) => 0,
            (ModelId::Dense | ModelId::Expert(_), ExpertSteps::Equal(steps)) => steps,
            (ModelId::Dense, ExpertSteps::Proportional { proportional }) => {
                (proportional / experts / u64::from(training.global_batch)).max(1)
            }
            (ModelId::Expert(index), ExpertSteps::Proportional { proportional }) => {
                let all = pairs.iter().sum::<u64>().max(1);
                let own = usize::try_from(index).ok().and_then(|i| pairs.get(i)).copied();
                let share = u128::from(proportional) * u128::from(own.unwrap_or(all / experts));
                let steps = share / u128::from(all) / u128::from(training.global_batch);
                u64::try_from(steps).unwrap_or(u64::MAX).max(1)
            }
        };
        Step(seed + after)
    }

    /// Steps over which the learning rate falls to zero: the seed's and one expert's.
    pub fn schedule_steps(&self) -> u64 {
        self.due(ModelId::Dense, &[]).0
    }

    /// Makes every relative path absolute, as seen from `base`.
    pub fn resolve(&mut self, base: &str) {
        let absolute = |path: &mut String| {
            let plain = path.strip_prefix("file:").unwrap_or(path);
            if !plain.starts_with('/') && !plain.contains("://") {
                let plain = plain.strip_prefix("./").unwrap_or(plain);
                *path = format!("{}/{plain}", base.trim_end_matches('/'));
            }
        };
        let spec = &mut self.spec;
        absolute(&mut spec.dataset.shards);
        absolute(&mut spec.embedding.encoder);
        absolute(&mut spec.model.vocabulary);
        spec.evaluation.classification.iter_mut().for_each(absolute);
        spec.evaluation.retrieval.iter_mut().for_each(absolute);
        let scheme_less = spec.store.strip_prefix("file:").map(str::to_owned);
        if let Some(mut path) = scheme_less
            && !path.starts_with("//")
        {
            absolute(&mut path);
            spec.store = format!("file://{path}");
        }
    }
}

/// The pairs of each expert, read from the counts that the seal job reports as `pairs.expert-<i>`.
pub fn expert_pairs(counts: &BTreeMap<String, u64>, experts: u32) -> Vec<u64> {
    (0..experts)
        .map(|index| counts.get(&format!("pairs.expert-{index}")).copied().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests;
