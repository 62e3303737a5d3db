//! `manifest.json`: what was made of what, and what was left out and why.
//!
//! It holds no time and no path of this machine: the same input gives the same
//! manifest, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::captions::Captions;

/// Raised with every change of what is written, so that old output is redone.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const FILE_NAME: &str = "manifest.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub format: u32,
    /// Digest of all that decides the content: pictures, seed, classes, templates.
    pub inputs: String,
    pub seed: u64,
    pub fingerprint: String,
    pub found: FoundCounts,
    pub unusable_by_cause: BTreeMap<Cause, usize>,
    pub unusable: Vec<Unusable>,
    pub captions: CaptionCounts,
    pub near_duplicates: GroupCounts,
    pub train_pairs: usize,
    pub held_out_pictures: usize,
    pub class_pictures: usize,
    pub retrieval_pictures: usize,
    pub classes: Vec<ClassCount>,
    /// Every other file of the dataset.
    pub files: Vec<FileEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FoundCounts {
    pub pictures: usize,
    /// Names that are links to pictures counted in their own place.
    pub links: usize,
    pub usable: usize,
    /// Long strips, centred on white.
    pub padded: usize,
}

/// Why a picture is not in the dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Cause {
    TooManyPixels,
    Undecodable,
    Unreadable,
    BrokenLink,
    LinkLeavesTree,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unusable {
    pub path: String,
    pub cause: Cause,
    pub detail: String,
}

/// Of the usable pictures, how many have which captions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CaptionCounts {
    pub texts: usize,
    pub title: usize,
    pub description: usize,
    pub keywords: usize,
    /// No caption at all: written as a pair with no texts, for the pipeline to count.
    pub none: usize,
    /// Metadata that is missing or broken, read as far as it goes.
    pub broken_metadata: usize,
}

impl CaptionCounts {
    pub(crate) fn of(captions: &Captions) -> Self {
        let texts = captions.texts().len();
        Self {
            texts,
            title: captions.title.is_some().into(),
            description: captions.description.is_some().into(),
            keywords: (!captions.keywords.is_empty()).into(),
            none: (texts == 0).into(),
            broken_metadata: captions.broken.is_some().into(),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let Self { texts, title, description, keywords, none, broken_metadata } = other;
        self.texts += texts;
        self.title += title;
        self.description += description;
        self.keywords += keywords;
        self.none += none;
        self.broken_metadata += broken_metadata;
    }
}

/// Groups of near-duplicates among the usable pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupCounts {
    pub groups: usize,
    pub of_several: usize,
    pub largest: usize,
    /// Groups too large to be held out, and the pictures in them.
    pub above_limit: usize,
    pub pictures_above_limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClassCount {
    pub folder: String,
    pub name: String,
    pub pictures: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
    /// Pictures in it, if it is a tar.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pictures: Option<usize>,
}

impl Manifest {
    /// The manifest of a finished dataset in `folder` made of `inputs`, if there is one.
    ///
    /// Sizes are compared, not digests: this answers in no time.
    pub(crate) fn of_finished(folder: &Path, inputs: &str) -> Option<Self> {
        let text = fs::read(folder.join(FILE_NAME)).ok()?;
        let manifest: Self = serde_json::from_slice(&text).ok()?;
        let is_there = |file: &FileEntry| {
            fs::metadata(folder.join(&file.path)).is_ok_and(|about| about.len() == file.bytes)
        };
        let is_finished = manifest.format == FORMAT
            && manifest.inputs == inputs
            && manifest.files.iter().all(is_there);
        is_finished.then_some(manifest)
    }

    /// What a person wants to know, in a few lines.
    pub(crate) fn summary(&self, folder: &Path) -> String {
        let causes: Vec<String> = self
            .unusable_by_cause
            .iter()
            .map(|(cause, count)| format!("{count} {}", cause.as_words()))
            .collect();
        let causes = if causes.is_empty() { "none".to_owned() } else { causes.join(", ") };
        let FoundCounts { pictures, links, .. } = self.found;
        format!(
            "pictures   {pictures} found ({links} more names are links to them)\n\
             unusable   {causes}\n\
             training   {} pairs, {} of all pictures without any caption\n\
             held out   {} pictures: {} in {} classes, {} with captions for retrieval\n\
             dataset    {} (seed {}; the rest stands in {FILE_NAME})",
            self.train_pairs,
            self.captions.none,
            self.held_out_pictures,
            self.class_pictures,
            self.classes.len(),
            self.retrieval_pictures,
            folder.display(),
            self.seed,
        )
    }
}

impl Cause {
    fn as_words(self) -> &'static str {
        match self {
            Self::TooManyPixels => "with more than 64 megapixels",
            Self::Undecodable => "not decodable",
            Self::Unreadable => "not readable",
            Self::BrokenLink => "broken links",
            Self::LinkLeavesTree => "links out of the packages",
        }
    }
}
