//! Measures how many captions one thread turns into rows of token ids in a second.
//!
//!     cargo run --release -p clade-model --example tokens_speed -- VOCABULARY CAPTIONS [IDS]
//!
//! `CAPTIONS` holds one a line. With `IDS` the rows are written there, 77 little-endian i64 each:
//! `deploy/bench/tokens.py` compares them with OpenCLIP's.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(clippy::unwrap_used, reason = "a measurement, not a service")]

use std::path::Path;
use std::time::Instant;
use std::{env, fs};

use clade_model::tokenizer::Tokenizer;

const CONTEXT: usize = 77;
/// The file is short for a fast tokenizer: one pass would measure how caches warm up.
const PASSES: usize = 10;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [vocabulary, captions, ids @ ..] = &arguments[..] else {
        panic!("give a vocabulary and a file of captions");
    };
    let tokenizer = Tokenizer::from_file(Path::new(vocabulary)).unwrap();
    let captions = fs::read_to_string(captions).unwrap();
    let captions: Vec<&str> = captions.lines().collect();
    let rows = || captions.iter().flat_map(|caption| tokenizer.encode_row(caption, CONTEXT));
    let mut all = Vec::with_capacity(captions.len() * CONTEXT);
    let start = Instant::now();
    for _ in 0..PASSES {
        all.clear();
        all.extend(rows());
    }
    let passed = start.elapsed().as_secs_f64();
    println!("{:.0} captions/s", (PASSES * captions.len()) as f64 / passed);
    if let [path] = ids {
        let bytes: Vec<u8> = all.iter().flat_map(|id| id.to_le_bytes()).collect();
        fs::write(path, bytes).unwrap();
    }
}
