//! Measures what a run on two cores is made of: training steps, captions, pictures, clusters.
//!
//!     cargo run --release -p clade-model --example speed -- [threads] [part…]
//!
//! Parts: `train`, `captions`, `pictures`, `clusters`; all of them if none is named. A machine does
//! little else meanwhile, or the numbers mean nothing.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(clippy::unwrap_used, reason = "a measurement, not a service")]

use std::env;
use std::path::Path;
use std::time::Instant;

use clade_model::bert::SentenceEncoder;
use clade_model::collective::Solo;
use clade_model::config::ClipConfig;
use clade_model::kmeans::{FineOptions, Points, fine};
use clade_model::threads;
use clade_model::train::{Batch, TrainHyper, Trainer};
use clade_pictures::{decode_rgb, train_pixels};

fn main() {
    let mut arguments = env::args().skip(1);
    let threads = arguments.next().and_then(|it| it.parse().ok()).unwrap_or(1);
    let parts: Vec<String> = arguments.collect();
    let is_due = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);
    threads::set_intra_op(threads);
    println!("{threads} threads");
    for (part, measure) in [
        ("train", train as fn()),
        ("captions", captions),
        ("pictures", pictures),
        ("clusters", clusters),
    ] {
        if is_due(part) {
            measure();
        }
    }
}

/// Numbers without pattern, the same in every run.
fn noise(count: usize) -> impl Iterator<Item = u64> {
    (0..count as u64).map(|i| (i ^ (i << 21)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24)
}

fn train() {
    let pairs = 128;
    let config = ClipConfig::preset("small").unwrap();
    let context = config.context_length();
    let pixels = noise(pairs * 3 * 40 * 40).map(|it| u8::try_from(it % 256).unwrap());
    let pixels = pixels.collect::<Vec<_>>().into();
    // Caption lengths of web data: most of 4 to 14 tokens, some as long as there is room.
    let mut tokens = vec![0_i64; pairs * context];
    for (pair, (row, draw)) in tokens.chunks_mut(context).zip(noise(pairs)).enumerate() {
        let length = if pair % 8 == 0 { context } else { 4 + (draw % 10) as usize };
        row[0] = 49_406;
        for (place, draw) in
            row[1..length - 1].iter_mut().zip(noise(pair * 31 + 40).skip(pair * 31))
        {
            *place = 256 + (draw % 20_000) as i64;
        }
        row[length - 1] = 49_407;
    }
    let batch = Batch { pixels, tokens, valid: vec![true; pairs] };
    let mut trainer = Trainer::new(&config, TrainHyper::default(), 1);
    for _ in 0..3 {
        trainer.step(&batch, &mut Solo).unwrap();
    }
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            trainer.step(&batch, &mut Solo).unwrap();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "train small, batch {pairs}: {:.0} ms a step ({:.0} at best), {:.0} pairs/s",
        times[7] * 1e3,
        times[0] * 1e3,
        pairs as f64 / times[7]
    );
}

fn captions() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/all-minilm-l6-v2");
    let encoder = SentenceEncoder::load(&dir).unwrap();
    let words = [
        "lemon",
        "svg",
        "theme",
        "flag",
        "of",
        "france",
        "computer",
        "icon",
        "blue",
        "star",
        "gramastar",
        "animal",
    ];
    let texts: Vec<String> = noise(4000)
        .map(|draw| {
            let count = if draw % 10 == 0 { 40 } else { 2 + draw % 9 };
            let pick = |i: u64| words[(((draw >> (i % 16)) + i) % 12) as usize];
            (0..count).map(pick).collect::<Vec<_>>().join(" ")
        })
        .collect();
    encoder.embed_vec(&texts[..200]).unwrap();
    let start = Instant::now();
    encoder.embed_vec(&texts).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("captions: {} in {seconds:.1} s, {:.0}/s", texts.len(), texts.len() as f64 / seconds);
}

fn pictures() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pictures/tests/golden/large.jpg");
    let bytes = std::fs::read(path).unwrap();
    let start = Instant::now();
    let rounds = 2000;
    let mut sum = 0_u64;
    for draw in 0..rounds {
        let picture = decode_rgb(&bytes, 1 << 24).unwrap();
        sum += u64::from(train_pixels(&picture, 40, draw)[0]);
    }
    let each = start.elapsed().as_secs_f64() * 1e3 / rounds as f64;
    println!("pictures: {each:.3} ms to decode 128x170 and crop to 40 ({sum})");
}

fn clusters() {
    let (points, width) = (20_000, 384);
    let mut values = vec![0.0_f32; points * width];
    for (row, draw) in values.chunks_mut(width).zip(noise(points)) {
        for (place, value) in row.iter_mut().enumerate() {
            let topic = ((draw % 300) as usize * 131 + place * 7) % 97;
            let jitter = (draw >> (place % 24)) % 100;
            *value = topic as f32 / 97.0 - 0.5 + jitter as f32 / 400.0;
        }
        let norm = row.iter().map(|it| it * it).sum::<f32>().sqrt();
        row.iter_mut().for_each(|it| *it /= norm);
    }
    let start = Instant::now();
    let found = fine(Points::new(&values, width).unwrap(), &FineOptions::default()).unwrap();
    println!(
        "clusters: {points} points, 64 clusters, {} rounds in {:.1} s",
        found.iterations,
        start.elapsed().as_secs_f64()
    );
}
