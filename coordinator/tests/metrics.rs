//! Runs the tests of `coordinator/src/metrics` until `main.rs` has `mod metrics;`: then this
//! file goes.

#[path = "../src"]
mod shell {
    mod metrics;
}
