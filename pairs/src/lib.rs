//! Pairs on their way from input tars to a training step, without tensors.
//!
//! [`scan`] reads a tar once and judges every pair; [`index`] is the table that comes of it;
//! [`shelf`] reads single pictures out of tars; [`loader`] turns the order of data into batches.
//! Nothing here decides which pairs a model gets: manifests do.

mod cache;
pub mod cause;
#[cfg(feature = "fixture")]
pub mod fixture;
pub mod index;
pub mod indexes;
pub mod loader;
pub mod picture;
pub mod provenance;
pub mod reading;
pub mod scan;
pub mod shelf;
pub mod source;
pub mod table;
pub mod tar_file;
#[cfg(feature = "fixture")]
pub mod trial;

pub use cache::Cache;
pub use clade_pictures as pictures;
