//! Arbitrary bytes as an index.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clade_pairs::trial::index(bytes));
