//! Pictures a second on one thread, and what the quick path changes.
//!
//!     cargo run --release -p clade-pictures --example speed -- FILES…
//!
//! Of each picture the fastest of many rounds counts, all ways taking turns, so that a busy machine
//! bends the ratios little.
#![expect(clippy::print_stdout, reason = "prints what it measures")]

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clade_pictures::{Darkroom, Detail, decode_rgb, probe, train_pixels};

const LIMIT: u64 = 1 << 26;
const SIZE: usize = 224;
const ROUNDS: u64 = 25;

/// A way to spend time on a picture's bytes.
type Way<'a> = (&'a str, Box<dyn FnMut(&[u8], u64) + 'a>);

fn main() {
    let files: Vec<Vec<u8>> =
        std::env::args().skip(1).map(|path| fs::read(path).expect("a readable file")).collect();
    assert!(!files.is_empty(), "usage: speed FILES…");
    let count = files.len() as f64;
    let (mut pixels, mut bytes) = (0.0, 0.0);
    for file in &files {
        let (width, height) = probe(file).expect("a picture");
        pixels += f64::from(width) * f64::from(height);
        bytes += file.len() as f64;
    }
    println!(
        "{count} pictures of {:.0} pixels on average, {:.2} bits a pixel; {SIZE} x {SIZE} wanted",
        pixels / count,
        8.0 * bytes / pixels
    );
    time(&files);
    compare(&files);
}

fn time(files: &[Vec<u8>]) {
    let mut ways: Vec<Way<'_>> = vec![
        ("header", Box::new(|bytes, _| drop(black_box(probe(bytes))))),
        ("decode_rgb", Box::new(|bytes, _| drop(black_box(decode_rgb(bytes, LIMIT))))),
        (
            "decode_rgb, train_pixels",
            Box::new(|bytes, draw| {
                let picture = decode_rgb(bytes, LIMIT).expect("a picture");
                drop(black_box(train_pixels(&picture, SIZE, draw)));
            }),
        ),
    ];
    let into = |size: usize, detail| {
        let mut darkroom = Darkroom::new();
        let mut out = vec![0; 3 * size * size];
        move |bytes: &[u8], draw| {
            darkroom
                .train_pixels_into(bytes, LIMIT, size, draw, detail, &mut out)
                .expect("a picture");
            black_box(&out);
        }
    };
    ways.push(("Exact", Box::new(into(SIZE, Detail::Exact))));
    // Hardly any resizing: the rest is the decoding.
    ways.push(("  of it decoding, about", Box::new(into(1, Detail::Exact))));
    ways.push(("Enough", Box::new(into(SIZE, Detail::Enough))));
    // An eighth of the sides: no transform to speak of, and nothing to resize.
    ways.push(("  of it entropy decoding, about", Box::new(into(1, Detail::Enough))));

    let mut best = vec![Duration::ZERO; ways.len()];
    for file in files {
        let mut least = vec![Duration::MAX; ways.len()];
        for draw in 0..ROUNDS {
            for ((_, way), least) in ways.iter_mut().zip(&mut least) {
                let start = Instant::now();
                way(file, draw);
                *least = start.elapsed().min(*least);
            }
        }
        for (sum, least) in best.iter_mut().zip(least) {
            *sum += least;
        }
    }
    for ((name, _), sum) in ways.iter().zip(best) {
        let each = sum.as_secs_f64() / files.len() as f64;
        println!("{name:32} {:8.4} ms {:9.0} a second", 1e3 * each, 1.0 / each);
    }
}

/// How far `Enough` is from `Exact`, over all pictures.
fn compare(files: &[Vec<u8>]) {
    let mut darkroom = Darkroom::new();
    let mut crop = |bytes: &[u8], draw, detail| {
        let mut out = vec![0; 3 * SIZE * SIZE];
        darkroom.train_pixels_into(bytes, LIMIT, SIZE, draw, detail, &mut out).expect("a picture");
        out
    };
    let (mut largest, mut sum, mut squares, mut count) = (0, 0.0, 0.0, 0.0);
    for (file, draw) in files.iter().zip(0..) {
        let exact = crop(file, draw, Detail::Exact);
        for (one, other) in exact.iter().zip(crop(file, draw, Detail::Enough)) {
            let off = one.abs_diff(other);
            largest = off.max(largest);
            sum += f64::from(off);
            squares += f64::from(off).powi(2);
            count += 1.0;
        }
    }
    let psnr = 10.0 * (255.0 * 255.0 * count / squares).log10();
    println!(
        "Enough is off Exact by {:.3} of 255 on average, {largest} at most; PSNR {psnr:.1} dB",
        sum / count
    );
}
