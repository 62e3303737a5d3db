//! The harness of the tests that need more than one crate: a simulated world for the scheduler,
//! and real processes for everything else.

#![expect(clippy::print_stdout, reason = "a test says its seed and what it skips")]

pub mod world;
