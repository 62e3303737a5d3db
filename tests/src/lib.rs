//! The harness of the tests that need more than one crate: a simulated world for the scheduler,
//! and real processes for everything else.

pub mod bucket;
pub mod records;
pub mod system;
pub mod toy;
pub mod world;
