//! The jobs: each reads committed manifests of earlier stages and writes immutable artefacts.
//!
//! A job killed at any moment leaves nothing but files in its own try's folder, which the next try
//! removes; its manifest is created last. Doing a job twice gives the same content.

pub(crate) mod assign;
pub(crate) mod catalog;
pub(crate) mod cluster;
pub(crate) mod commit;
pub(crate) mod embed;
pub(crate) mod evaluate;
pub(crate) mod index;
pub(crate) mod publish;
pub(crate) mod report;
pub(crate) mod seal;
pub(crate) mod shard;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
