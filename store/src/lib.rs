//! (clade-store)
