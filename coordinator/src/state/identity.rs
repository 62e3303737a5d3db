//! Whose state a place holds, and in which format.

use std::hash::{BuildHasher as _, RandomState};

use serde::{Deserialize, Serialize};

use super::format::FORMAT;
use super::{Cluster, OpenError};

/// Written once, by the first coordinator that comes to an empty place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// Drawn by chance, so that a place that was emptied and filled again is not taken for the old one.
    pub(crate) id: String,
    pub(crate) format: u32,
}

impl Identity {
    pub(crate) fn draw(name: &str, format: u32) -> Self {
        // The standard library seeds these from the system's randomness; an id needs no more.
        let half = || RandomState::new().hash_one(name);
        Self { name: name.to_owned(), id: format!("{:016x}{:016x}", half(), half()), format }
    }

    /// Without the format, which changes.
    pub(crate) fn cluster(&self) -> Cluster {
        Cluster { name: self.name.clone(), id: self.id.clone() }
    }

    /// Refuses a place of another cluster, or of a format that is not known yet.
    pub(crate) fn check(&self, place: &str, wanted: &str) -> Result<(), OpenError> {
        let place = place.to_owned();
        if self.format > FORMAT {
            return Err(OpenError::NewerFormat { place, found: self.format, known: FORMAT });
        }
        if self.name != wanted {
            let (found, wanted) = (self.name.clone(), wanted.to_owned());
            return Err(OpenError::OtherCluster { place, found, wanted });
        }
        Ok(())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("two texts and a number are always JSON")
    }

    pub(crate) fn decode(place: &str, key: &str, value: &[u8]) -> Result<Self, OpenError> {
        serde_json::from_slice(value).map_err(|error| OpenError::Garbled {
            place: place.to_owned(),
            key: key.to_owned(),
            reason: error.to_string(),
        })
    }
}
