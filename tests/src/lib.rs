//! (clade-tests)
