//! Golden pixels from Pillow and torchvision; `tests/golden/make_golden.py` holds the Python lines.

use std::fs;
use std::path::PathBuf;

use super::*;

const LIMIT: u64 = 1 << 20;

fn golden(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    fs::read(folder.join(name)).unwrap()
}

fn golden_pixels(name: &str) -> Vec<u8> {
    let bytes = golden("pixels.safetensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().to_vec()
}

fn largest_and_mean_difference(one: &[u8], other: &[u8]) -> (u8, f64) {
    assert_eq!(one.len(), other.len());
    let off: Vec<u8> = one.iter().zip(other).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = off.iter().map(|&off| f64::from(off)).sum::<f64>() / off.len() as f64;
    (off.into_iter().max().unwrap(), mean)
}

#[test]
fn eval_pixels_equal_those_of_torchvision() {
    // JPEG decoders may differ in their inverse transform and in how they widen the colours.
    for (name, most, average) in [
        ("a.png", 2, 0.2),
        ("a.webp", 2, 0.2),
        ("a.jpg", 4, 0.6),
        ("grey.jpg", 4, 0.6),
        ("cmyk.jpg", 4, 0.6),
    ] {
        let picture = decode_rgb(&golden(name), LIMIT).unwrap();
        for (golden, size) in [("eval", 32), ("large", 80)] {
            let expected = golden_pixels(&format!("{golden}.{name}"));
            let pixels = eval_pixels(&picture, size);
            let (largest, mean) = largest_and_mean_difference(&pixels, &expected);
            assert!(largest <= most && mean <= average, "{golden} {name}: {largest}, {mean}");
        }
    }
}

#[test]
fn a_truncated_picture_is_unreadable_wherever_it_ends() {
    for name in ["a.jpg", "a.png", "a.webp"] {
        let whole = golden(name);
        for share in [30, 60, 90, 99] {
            let part = &whole[..whole.len() * share / 100];
            let error = decode_rgb(part, LIMIT).unwrap_err();
            assert_eq!(error.cause(), "unreadable", "{name} cut at {share} %");
        }
    }
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    let picture = golden("a.png");
    assert_eq!(probe(&picture).unwrap(), (88, 53));
    let error = decode_rgb(&picture, 88 * 53 - 1).unwrap_err();
    assert_eq!(error, DecodeError::TooManyPixels { width: 88, height: 53, limit: 4663 });
    assert!(decode_rgb(&picture, 88 * 53).is_ok());
    // The header alone of a PNG of 20,000 x 20,000: refused without its pixels.
    let mut header = picture[..16].to_vec();
    header.extend([0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20]);
    header.extend(&picture[24..]);
    let error = decode_rgb(&header, 64_000_000).unwrap_err();
    assert_ne!(error.cause(), "empty", "{error}");
}

#[test]
fn what_is_no_picture_says_so() {
    assert_eq!(decode_rgb(b"", LIMIT).unwrap_err(), DecodeError::Empty);
    assert_eq!(decode_rgb(b"<svg/>", LIMIT).unwrap_err(), DecodeError::UnsupportedFormat);
    assert_eq!(decode_rgb(b"GIF89a.....", LIMIT).unwrap_err(), DecodeError::UnsupportedFormat);
}

#[test]
fn transparency_lies_on_white() {
    let mut png = Vec::new();
    let picture = image::RgbaImage::from_raw(2, 1, vec![0, 0, 0, 0, 200, 100, 0, 255]).unwrap();
    picture.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
    assert_eq!(decode_rgb(&png, LIMIT).unwrap().data, vec![255, 255, 255, 200, 100, 0]);
}

#[test]
fn pictures_of_one_pixel_and_of_extreme_length_have_pixels() {
    for (width, height) in [(1, 1), (1, 4000), (4000, 1), (5, 3)] {
        let count = usize::try_from(width * height * 3).unwrap();
        let picture = RgbImage { width, height, data: vec![77; count] };
        assert_eq!(eval_pixels(&picture, 40), vec![77; 4800], "{width}x{height}");
        assert_eq!(train_pixels(&picture, 40, 9), vec![77; 4800], "{width}x{height}");
    }
}
