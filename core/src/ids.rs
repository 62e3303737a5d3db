//! Names and counters that cross process and file boundaries.
//!
//! Every id prints as it is written in keys, logs and command lines, and parses back from that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not the id it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found `{found}`")]
pub struct ParseIdError {
    pub expected: &'static str,
    pub found: String,
}

/// Derives serde through `Display` and `FromStr`, so that a file shows what a log line shows.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Declares a counter that prints as its number.
macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter! {
    /// Fences the gangs formed for one work: never decreases, never reused.
    Incarnation
}
counter! {
    /// Fences coordinator leadership: counted up each time a coordinator takes the state.
    Term
}
counter! {
    /// Counts optimizer updates from the seed model's first.
    Step
}
counter! {
    /// Milliseconds since the Unix epoch, as told by whoever brings an event.
    Millis
}

/// Names one run: lower-case letters, digits and `-`, at most 63, as Kubernetes names are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunName(String);

impl RunName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RunName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let sound = (1..=63).contains(&text.len())
            && text.chars().all(|c| inner(c) || c == '-')
            && text.starts_with(inner)
            && text.ends_with(inner);
        if sound {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError {
                expected: "a run name of at most 63 lower-case letters, digits and `-`",
                found: text.to_owned(),
            })
        }
    }
}

serde_as_text!(RunName);

/// Names one model of a run.
///
/// Written `seed`, `dense` or `expert-3` in keys, logs and commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelId {
    /// The shared checkpoint every expert starts from.
    Seed,
    /// The baseline: the seed continued on all data for as long as one expert.
    Dense,
    /// The model trained on the pairs of one condition.
    Expert(u32),
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed => f.write_str("seed"),
            Self::Dense => f.write_str("dense"),
            Self::Expert(index) => write!(f, "expert-{index}"),
        }
    }
}

impl FromStr for ModelId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "seed" => Ok(Self::Seed),
            "dense" => Ok(Self::Dense),
            _ => text
                .strip_prefix("expert-")
                .and_then(|index| index.parse().ok())
                .map(Self::Expert)
                .ok_or_else(|| ParseIdError {
                    expected: "seed, dense or expert-<number>",
                    found: text.to_owned(),
                }),
        }
    }
}

serde_as_text!(ModelId);

/// One step of the path from dataset to bundle, in order; the models train between `Seal` and `Evaluate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Lists the pairs of one input tar.
    Index,
    /// Merges the indexes into the catalogue of all pairs: duplicates, totals, the share of bad ones.
    Catalog,
    /// Embeds the deciding caption of each pair of a group of tars.
    Embed,
    /// Finds the fine and coarse centres.
    Cluster,
    /// Gives each pair of a group its nearest fine centre.
    Assign,
    /// Rewrites the pairs of a group into per-expert tars.
    Shard,
    /// Writes the manifest of each expert's shards.
    Seal,
    /// Encodes the evaluation sets with one model.
    Evaluate,
    /// Routes, combines and writes the report.
    Report,
    /// Writes the bundle.
    Publish,
}

impl Stage {
    pub const ALL: [Self; 10] = [
        Self::Index,
        Self::Catalog,
        Self::Embed,
        Self::Cluster,
        Self::Assign,
        Self::Shard,
        Self::Seal,
        Self::Evaluate,
        Self::Report,
        Self::Publish,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Catalog => "catalog",
            Self::Embed => "embed",
            Self::Cluster => "cluster",
            Self::Assign => "assign",
            Self::Shard => "shard",
            Self::Seal => "seal",
            Self::Evaluate => "evaluate",
            Self::Report => "report",
            Self::Publish => "publish",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.name() == text)
            .ok_or_else(|| ParseIdError { expected: "a stage", found: text.to_owned() })
    }
}

serde_as_text!(Stage);

/// Names one job: a stage over a slice of the input. Written `embed.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    pub stage: Stage,
    pub part: u32,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stage, self.part)
    }
}

/// Names whatever is seated as one: a job (one seat) or a model (a gang of one or more).
///
/// Written `embed.3` or `expert-2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkId {
    Job(JobId),
    Model(ModelId),
}

impl WorkId {
    pub const fn job(stage: Stage, part: u32) -> Self {
        Self::Job(JobId { stage, part })
    }

    pub const fn model(self) -> Option<ModelId> {
        match self {
            Self::Model(model) => Some(model),
            Self::Job(_) => None,
        }
    }
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job) => job.fmt(f),
            Self::Model(model) => model.fmt(f),
        }
    }
}

impl FromStr for WorkId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((stage, part)) = text.split_once('.') else {
            return text.parse().map(Self::Model);
        };
        let part = part.parse().map_err(|_| ParseIdError {
            expected: "<stage>.<number> or a model",
            found: text.to_owned(),
        })?;
        Ok(Self::job(stage.parse()?, part))
    }
}

serde_as_text!(WorkId);

/// Names one worker: one agent process, one lifetime. A restarted agent is another worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one machine over all the agents it has had.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(pub String);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place for one rank: a worker and one of its slots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seat {
    pub worker: WorkerId,
    pub slot: u32,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.worker, self.slot)
    }
}

/// Proof of which gang (or which try of a job) is speaking.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    pub run: RunName,
    pub work: WorkId,
    pub incarnation: Incarnation,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.run, self.work, self.incarnation)
    }
}

/// SHA-256 of an artefact, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed =
            || ParseIdError { expected: "64 hexadecimal digits", found: text.to_owned() };
        if text.len() != 64 || !text.is_ascii() {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| malformed())?;
        }
        Ok(Self(bytes))
    }
}

serde_as_text!(Digest);

/// Points at one checkpoint of one model, and proves what its manifest must say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointRef {
    pub model: ModelId,
    pub incarnation: Incarnation,
    pub step: Step,
    /// Digest of `manifest.json`.
    pub manifest: Digest,
}

impl fmt::Display for CheckpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} gang-{} step-{}", self.model, self.incarnation, self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_id_parses_back_from_what_it_prints() {
        let mut works: Vec<WorkId> =
            Stage::ALL.into_iter().map(|stage| WorkId::job(stage, 17)).collect();
        works.extend([ModelId::Seed, ModelId::Dense, ModelId::Expert(31)].map(WorkId::Model));
        for work in works {
            assert_eq!(work.to_string().parse(), Ok(work));
        }
    }

    #[test]
    fn a_run_name_that_could_leave_its_folder_is_refused() {
        for bad in ["", "..", "a/b", "-a", "A", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<RunName>().is_err(), "{bad:?} was taken");
        }
        assert!("clipart-2".parse::<RunName>().is_ok());
    }

    #[test]
    fn a_digest_that_is_not_64_hexadecimal_digits_is_refused() {
        assert!("é".repeat(32).parse::<Digest>().is_err());
        let digest = Digest([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
}
