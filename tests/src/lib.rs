//! The harness of the tests that need more than one crate: real processes, watched from outside.

pub mod arena;
pub mod bucket;
pub mod records;
pub mod system;
pub mod toy;
pub mod tripwire;
