//! Why a pair cannot be used: counted by cause, listed, never dropped in silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Places listed for each cause; beyond them pairs are only counted.
const LISTED: usize = 1_000;
/// The same for lists that were merged from many tars: each tar's own list has the rest.
const LISTED_IN_ALL: usize = 20_000;

/// One reason; a closed set, so that counts can be compared between runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
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
    /// A name that is absolute, leads out of its folder, or is not UTF-8.
    BadName,
    /// The picture's bytes are not those that were indexed.
    ChangedPair,
    /// The tar was written to while it was read: what was read may be of two minds.
    ChangedTar,
    /// The tar ends or breaks off where it should not; pairs beyond are lost, so this counts at least one.
    UnreadableTar,
}

impl Cause {
    pub const fn name(self) -> &'static str {
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
            Self::BadName => "badName",
            Self::ChangedPair => "changedPair",
            Self::ChangedTar => "changedTar",
            Self::UnreadableTar => "unreadableTar",
        }
    }
}

/// The unusable pairs of a tar or of a catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unusable(BTreeMap<Cause, Listed>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub count: u64,
    /// The first of them.
    pub places: Vec<Place>,
}

/// Where an unusable pair lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The pair's key; none where the tar itself is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub tar: String,
    /// Bytes from the start of the tar: to the header of the pair's first member; of a pair that was indexed,
    /// to its picture; to the fault, where the tar is at fault.
    pub offset: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, tar, offset } = self;
        match key {
            Some(key) => write!(f, "{key} ({tar} at {offset})"),
            None => write!(f, "{tar} at {offset}"),
        }
    }
}

impl Unusable {
    pub fn add(&mut self, cause: Cause, place: Place) {
        let listed = self.0.entry(cause).or_default();
        listed.count += 1;
        if listed.places.len() < LISTED {
            listed.places.push(place);
        }
    }

    /// Takes in another list: all its counts, and its places while there is room.
    pub fn merge(&mut self, other: &Self) {
        for (cause, listed) in &other.0 {
            let own = self.0.entry(*cause).or_default();
            own.count += listed.count;
            let room = LISTED_IN_ALL.saturating_sub(own.places.len());
            own.places.extend(listed.places.iter().take(room).cloned());
        }
    }

    pub fn total(&self) -> u64 {
        self.0.values().map(|listed| listed.count).sum()
    }

    pub fn by_cause(&self) -> impl Iterator<Item = (Cause, &Listed)> {
        self.0.iter().map(|(cause, listed)| (*cause, listed))
    }

    pub fn of(&self, cause: Cause) -> u64 {
        self.0.get(&cause).map_or(0, |listed| listed.count)
    }

    /// Counts as they stand in manifests: `unusable` and `unusable.<cause>`.
    pub fn count_into(&self, counts: &mut BTreeMap<String, u64>) {
        counts.insert("unusable".to_owned(), self.total());
        for (cause, listed) in self.by_cause() {
            counts.insert(format!("unusable.{}", cause.name()), listed.count);
        }
    }

    /// One line for people: `6 missingImage, 2 badJson`, or `none`.
    pub fn summary(&self) -> String {
        let causes: Vec<String> = self
            .by_cause()
            .map(|(cause, listed)| format!("{} {}", listed.count, cause.name()))
            .collect();
        if causes.is_empty() { "none".to_owned() } else { causes.join(", ") }
    }
}
