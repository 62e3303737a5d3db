//! Why a pair cannot be used: counted by cause, listed, never dropped in silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Keys listed for each cause; beyond them pairs are only counted.
const LISTED: usize = 1_000;

/// One reason; a closed set, so that counts can be compared between runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Cause {
    MissingImage,
    MissingCaption,
    EmptyCaption,
    UnreadableHeader,
    TruncatedImage,
    TooManyPixels,
    /// A member too large to be held in memory.
    TooManyBytes,
    DuplicateKey,
    UnsupportedFormat,
    BadJson,
    /// The tar ends or breaks off where it should not; pairs beyond are lost, so this counts at least one.
    UnreadableTar,
}

impl Cause {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MissingImage => "missingImage",
            Self::MissingCaption => "missingCaption",
            Self::EmptyCaption => "emptyCaption",
            Self::UnreadableHeader => "unreadableHeader",
            Self::TruncatedImage => "truncatedImage",
            Self::TooManyPixels => "tooManyPixels",
            Self::TooManyBytes => "tooManyBytes",
            Self::DuplicateKey => "duplicateKey",
            Self::UnsupportedFormat => "unsupportedFormat",
            Self::BadJson => "badJson",
            Self::UnreadableTar => "unreadableTar",
        }
    }
}

/// The unusable pairs of a tar or of a catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Unusable(BTreeMap<Cause, Listed>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    pub(crate) count: u64,
    /// The first of them: keys of pairs, or the tar's own address.
    pub(crate) keys: Vec<String>,
}

impl Unusable {
    pub(crate) fn add(&mut self, cause: Cause, key: &str) {
        let listed = self.0.entry(cause).or_default();
        listed.count += 1;
        if listed.keys.len() < LISTED {
            listed.keys.push(key.to_owned());
        }
    }

    /// Takes in another list, whole.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (cause, listed) in &other.0 {
            let own = self.0.entry(*cause).or_default();
            own.count += listed.count;
            own.keys.extend(listed.keys.iter().cloned());
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().map(|listed| listed.count).sum()
    }

    pub(crate) fn by_cause(&self) -> impl Iterator<Item = (Cause, &Listed)> {
        self.0.iter().map(|(cause, listed)| (*cause, listed))
    }

    #[cfg(test)]
    pub(crate) fn of(&self, cause: Cause) -> u64 {
        self.0.get(&cause).map_or(0, |listed| listed.count)
    }

    /// Counts as they stand in manifests: `unusable` and `unusable.<cause>`.
    pub(crate) fn count_into(&self, counts: &mut crate::context::Counts) {
        counts.insert("unusable".to_owned(), self.total());
        for (cause, listed) in self.by_cause() {
            counts.insert(format!("unusable.{}", cause.name()), listed.count);
        }
    }
}
