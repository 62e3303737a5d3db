//! Arbitrary bytes as an index.
#![no_main]

libfuzzer_sys::fuzz_target!(
    // The fuzzer would end at a panic that is caught; one that is not ends it all the same.
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| clade_pairs::trial::index(bytes)
);
