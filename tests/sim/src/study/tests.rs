//! The accounts of the study add up, and would not if a line were left out.
