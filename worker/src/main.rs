//! (clade-worker)
fn main() {}
