//! (clade)
fn main() {}
