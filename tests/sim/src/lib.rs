//! Seeded worlds around `clade_core::schedule::step`: agents, ranks, a network, coordinators with a
//! database, an object store, clocks, operators, and everything that goes wrong with them.
//!
//! A seed decides a whole world: nothing here asks for the time, and every map is ordered. Faults
//! come for a minute and a half; then they stop, and every run must finish. [`judge`] keeps its own
//! records of what processes did, and holds the scheduler's decisions against them.

mod agent;
mod bucket;
mod coordinator;
pub mod coverage;
mod database;
mod faults;
mod judge;
mod lies;
mod machine;
mod network;
mod operator;
mod setting;
pub mod study;
mod training;
mod world;

pub use setting::{Kind, Setting};
pub use world::{Outcome, World, play};
