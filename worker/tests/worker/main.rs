//! What a worker promises, tried on the real program.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod desk;
mod fleet;
mod gang;
mod lab;
