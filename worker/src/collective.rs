//! The collectives of CPU ranks: a ring over TCP.
//!
//! A gang meets at rank 0's address, each rank proves its [`Place`] (fence, rank, ranks), and the
//! ranks connect in a ring. Strangers and ranks of another incarnation are turned away. A ring
//! never outlives its gang: one lost peer ends it for all.

mod handshake;
mod meet;
mod ring;
mod transfer;

#[cfg(test)]
mod tests;

pub use handshake::Place;
pub use meet::{MeetError, Meeting, Patience, join};
pub use ring::TcpRing;
pub use transfer::Waited;
