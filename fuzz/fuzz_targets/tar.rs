//! Arbitrary bytes as an input tar.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clade_pairs::trial::tar(bytes));
