//! The collectives of a gang: a ring over TCP, and NCCL beside it among GPUs.
//!
//! A gang meets at rank 0's address, the ranks prove to each other that they know the gang's [`Secret`]
//! and say their [`Place`] (fence, rank, ranks), and connect in a ring. Strangers and ranks of another
//! incarnation are turned away. A ring never outlives its gang: one lost peer ends it for all.

pub mod conformance;
mod gpus;
mod handshake;
mod meet;
mod patience;
mod ring;
mod secret;
mod transfer;
mod watched;

#[cfg(test)]
mod tests;

pub use gpus::{Exchange, OnGpus};
pub use handshake::Place;
pub use meet::{MeetError, Meeting, join};
pub use patience::Patience;
pub use ring::TcpRing;
pub use secret::Secret;
pub use transfer::Waited;
pub use watched::{LastExchange, Watched};
