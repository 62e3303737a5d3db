//! (clade-coordinator)
fn main() {}
