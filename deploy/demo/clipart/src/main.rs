//! (clade-clipart)
fn main() {}
