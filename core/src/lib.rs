//! The pure domain of Clade: names, run documents, plans, scheduling, the order of data, routing.
//!
//! Nothing here does I/O, reads a clock, draws a random number or logs. Time and seeds arrive as
//! arguments, so whatever happened can be replayed from its events.

pub mod ids;
pub mod job;
pub mod order;
pub mod plan;
pub mod rendezvous;
pub mod routing;
pub mod schedule;
pub mod spec;
