//! Pairs on their way from input tars to a training step.
//!
//! [`scan`] reads a tar once and judges every pair; [`index`] is the table that comes of it;
//! [`shelf`] reads single pictures out of tars; [`loader`] turns the order of data into batches.
//! Nothing here decides which pairs a model gets: manifests do.

pub(crate) mod cause;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod index;
pub(crate) mod loader;
pub(crate) mod picture;
pub(crate) mod scan;
pub(crate) mod shelf;
pub(crate) mod table;
pub(crate) mod tar_file;
