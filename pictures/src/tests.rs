//! Golden pixels from open_clip; `tests/golden/make_pixels.py` holds the Python lines.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use image::{ExtendedColorType, ImageEncoder};
use proptest::prelude::*;
use proptest::sample::Index;
use safetensors::SafeTensors;

use super::crop::Crop;
use super::resize::crop_pixels;
use super::*;

const LIMIT: u64 = 1 << 20;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pixels")
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

/// Every picture there, of every kind.
fn goldens() -> Vec<String> {
    let names = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".gz"));
    names.sort();
    assert!(names.len() > 30, "{names:?}");
    names
}

fn expected() -> Vec<u8> {
    let mut bytes = Vec::new();
    let packed = golden("expected.safetensors.gz");
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

fn largest_and_mean_difference(one: &[u8], other: &[u8]) -> (u8, f64) {
    assert_eq!(one.len(), other.len());
    let off: Vec<u8> = one.iter().zip(other).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = off.iter().map(|&off| f64::from(off)).sum::<f64>() / off.len() as f64;
    (off.into_iter().max().unwrap(), mean)
}

fn check_close(name: &str, pixels: &[u8], expected: &[u8]) {
    let (largest, mean) = largest_and_mean_difference(pixels, expected);
    assert!(largest <= 2 && mean <= 0.2, "{name}: at most {largest}, on average {mean}");
}

#[test]
fn eval_pixels_equal_those_of_open_clip() {
    let bytes = expected();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    for name in goldens() {
        let picture =
            decode_rgb(&golden(&name), LIMIT).unwrap_or_else(|why| panic!("{name}: {why}"));
        for size in [32, 80, 224] {
            let key = format!("eval {size} {name}");
            match expected.tensor(&key) {
                Ok(tensor) => check_close(&key, &eval_pixels(&picture, size), tensor.data()),
                Err(why) => assert_ne!(size, 32, "{key}: {why}"),
            }
        }
    }
}

#[test]
fn training_crops_equal_those_of_torchvision() {
    let bytes = expected();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["scene.jpg", "422.jpg", "rgb.png"] {
        let sides = expected.tensor(&format!("box {name}")).unwrap();
        let side = |at: usize| u32::from_le_bytes(sides.data()[4 * at..][..4].try_into().unwrap());
        let crop = Crop { left: side(0), top: side(1), width: side(2), height: side(3) };
        let picture = decode_rgb(&golden(name), LIMIT).unwrap();
        let key = format!("crop 64 {name}");
        let pixels = crop_pixels(&picture, 64, crop);
        check_close(&key, &pixels, expected.tensor(&key).unwrap().data());
    }
}

#[test]
fn a_truncated_picture_is_unreadable_wherever_it_ends() {
    for name in ["420.jpg", "progressive.jpg", "rgb.png", "lossless.webp", "lossy.webp"] {
        let whole = golden(name);
        for share in [30, 60, 90, 99] {
            let part = &whole[..whole.len() * share / 100];
            let error = decode_rgb(part, LIMIT).unwrap_err();
            assert_eq!(error.cause(), "unreadable", "{name} cut at {share} %");
        }
    }
}

#[test]
fn a_fault_hides_no_missing_end() {
    // libjpeg-turbo tells of the first fault alone.
    let faulty = golden("loose-bytes.jpg");
    for length in [faulty.len() - 2, faulty.len() * 9 / 10] {
        let cut = &faulty[..length];
        assert_eq!(decode_rgb(cut, LIMIT).unwrap_err().cause(), "unreadable");
        for detail in [Detail::Exact, Detail::Enough] {
            let made = developed(&mut Darkroom::new(), cut, 32, 0, detail);
            assert_eq!(made.unwrap_err().cause(), "unreadable");
        }
    }
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    let picture = golden("rgb.png");
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
fn an_error_refuses_a_jpeg_that_was_first_warned_of() {
    let mut jpeg = golden("loose-bytes.jpg");
    assert!(decode_rgb(&jpeg, LIMIT).is_ok());
    let scan = jpeg.windows(2).position(|marker| marker == [0xff, 0xda]).unwrap();
    jpeg[scan + 6] = 0x33; // Huffman tables that the file does not have
    let error = decode_rgb(&jpeg, LIMIT).unwrap_err();
    assert!(error.to_string().contains("Huffman table"), "{error}");
}

fn png(side: (u32, u32), kind: ExtendedColorType, bytes: &[u8]) -> Vec<u8> {
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder.write_image(bytes, side.0, side.1, kind).unwrap();
    png
}

#[test]
fn transparency_is_dropped_and_the_colours_below_it_stay() {
    let picture = png((2, 1), ExtendedColorType::Rgba8, &[10, 20, 30, 0, 200, 100, 0, 255]);
    assert_eq!(decode_rgb(&picture, LIMIT).unwrap().data, vec![10, 20, 30, 200, 100, 0]);
}

#[test]
fn sixteen_bits_are_rounded_to_eight() {
    let channels: [u16; 6] = [0, 128, 129, 257 * 77 + 128, 257 * 77 + 129, 65535];
    let bytes = channels.map(u16::to_ne_bytes).concat();
    let expected = vec![0, 0, 1, 77, 78, 255];
    let colour = png((2, 1), ExtendedColorType::Rgb16, &bytes);
    assert_eq!(decode_rgb(&colour, LIMIT).unwrap().data, expected);
    let grey = png((6, 1), ExtendedColorType::L16, &bytes);
    let thrice: Vec<u8> = expected.into_iter().flat_map(|grey| [grey; 3]).collect();
    assert_eq!(decode_rgb(&grey, LIMIT).unwrap().data, thrice);
}

#[test]
fn a_jpeg_of_more_than_eight_bits_is_refused() {
    let mut jpeg = golden("420.jpg");
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    jpeg[frame + 1] = 0xc1; // extended sequential
    jpeg[frame + 4] = 12;
    let error = decode_rgb(&jpeg, LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "the picture cannot be decoded: a JPEG of 12 bits a channel");
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

/// What a darkroom makes of a picture, and a check that it leaves nothing behind where it refuses.
fn developed(
    darkroom: &mut Darkroom,
    bytes: &[u8],
    size: usize,
    draw: u64,
    detail: Detail,
) -> Result<Vec<u8>, DecodeError> {
    let blank = vec![99; 3 * size * size];
    let mut out = blank.clone();
    let made = darkroom.train_pixels_into(bytes, LIMIT, size, draw, detail, &mut out);
    assert!(made.is_ok() || out == blank, "a refused picture was written in part");
    made.map(|()| out)
}

#[test]
fn exact_crops_of_a_darkroom_equal_those_of_decoding_and_cropping() {
    let mut darkroom = Darkroom::new();
    for name in goldens() {
        let bytes = golden(&name);
        let picture = decode_rgb(&bytes, LIMIT).unwrap();
        for (size, draws) in [(1, 0..3), (32, 3..40), (224, 40..45)] {
            for draw in draws {
                let pixels = developed(&mut darkroom, &bytes, size, draw, Detail::Exact).unwrap();
                assert!(pixels == train_pixels(&picture, size, draw), "{name} {size} {draw}");
            }
        }
    }
}

/// Over some crops: the largest difference between `Enough` and `Exact`, and the largest mean.
fn off_exact(bytes: &[u8], size: usize) -> (u8, f64) {
    let mut darkroom = Darkroom::new();
    let differences = (0..12).map(|draw| {
        let mut crop = |detail| developed(&mut darkroom, bytes, size, draw, detail).unwrap();
        largest_and_mean_difference(&crop(Detail::Exact), &crop(Detail::Enough))
    });
    differences.fold((0, 0.0), |(largest, mean), (one, other)| (one.max(largest), other.max(mean)))
}

#[test]
fn enough_shows_the_same_crop_as_exact_however_far_a_jpeg_is_shrunk() {
    let ramps = fs::read(folder().join("../ramps.jpg")).unwrap();
    // Shrunk by 8, 8, 4, 4, 2, 2 and not at all.
    for size in [25, 36, 40, 70, 90, 144, 224] {
        let (largest, mean) = off_exact(&ramps, size);
        assert!(largest <= 3 && mean <= 0.6, "{size}: at most {largest}, on average {mean}");
    }
}

#[test]
fn enough_is_close_to_exact() {
    for (name, size, most) in [
        ("scene.jpg", 100, 2.0),
        ("scene.jpg", 224, 0.3),
        ("tall.jpg", 224, 0.3),
        ("progressive.jpg", 40, 0.3),
        ("grey.jpg", 20, 2.0),
        ("ycck.jpg", 20, 3.0),
        ("411.jpg", 20, 2.0),
        ("lossy.webp", 20, 0.0),
        ("palette-alpha.png", 40, 0.0),
    ] {
        let (_, mean) = off_exact(&golden(name), size);
        assert!(mean <= most, "{name} {size}: {mean} on average");
    }
}

/// The same bytes without the segments of one marker.
fn without(jpeg: &[u8], marker: u8) -> Vec<u8> {
    let mut rest = jpeg.to_vec();
    while let Some(at) = rest.windows(2).position(|bytes| bytes == [0xff, marker]) {
        let length = usize::from(u16::from_be_bytes([rest[at + 2], rest[at + 3]]));
        rest.drain(at..at + 2 + length);
    }
    rest
}

#[test]
fn what_a_darkroom_met_before_changes_nothing() {
    let mut files: Vec<Vec<u8>> = goldens().iter().map(|name| golden(name)).collect();
    let whole = golden("420.jpg");
    files.extend([
        whole[..whole.len() / 2].to_vec(),
        // Tables left by another picture would do for these, were they still there.
        without(&whole, 0xdb),
        without(&whole, 0xc4),
        without(&golden("444.jpg"), 0xdb),
        b"\xff\xd8\xff".to_vec(),
        Vec::new(),
    ]);
    let larger = fs::read(folder().join("../ramps.jpg")).unwrap();
    let mut used = Darkroom::new();
    for (at, file) in files.iter().enumerate() {
        // Each after one before it and one far from it.
        for other in [file, &files[at * 7 % files.len()], &whole, &larger] {
            for detail in [Detail::Exact, Detail::Enough] {
                let _ = used.train_pixels_into(other, LIMIT, 16, 5, detail, &mut [0; 768]);
                let draw = at as u64;
                let fresh = developed(&mut Darkroom::new(), file, 24, draw, detail);
                assert!(developed(&mut used, file, 24, draw, detail) == fresh, "file {at}");
            }
        }
    }
    let lacking = developed(&mut used, &without(&whole, 0xdb), 24, 0, Detail::Exact);
    assert!(lacking.unwrap_err().to_string().contains("Quantization table"));
}

/// A picture of some kind, with bytes changed here and there and perhaps its end lost.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let files: Vec<Vec<u8>> = goldens().iter().map(|name| golden(name)).collect();
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 1..6);
    // Half of the changes fall into the headers, where they do more.
    let reach = prop_oneof![Just(700), Just(usize::MAX)];
    let end = prop::option::of(any::<Index>());
    (prop::sample::select(files), changes, reach, end).prop_map(
        |(mut file, changes, reach, end)| {
            for (at, byte) in changes {
                let at = at.index(file.len().min(reach));
                file[at] = byte;
            }
            let length = end.map_or(file.len(), |end| end.index(file.len()));
            file.truncate(length);
            file
        },
    )
}

thread_local! {
    /// One for all damaged pictures, as in training.
    static DARKROOM: RefCell<Darkroom> = RefCell::default();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_darkroom_refuses_what_decoding_refuses_and_makes_the_same_of_the_rest(
        bytes in damaged(), size in 1..40usize, draw: u64,
    ) {
        let expected =
            decode_rgb(&bytes, LIMIT).map(|picture| train_pixels(&picture, size, draw));
        let made = |detail| {
            DARKROOM.with_borrow_mut(|room| developed(room, &bytes, size, draw, detail))
        };
        let enough = made(Detail::Enough).map(|_| ());
        prop_assert_eq!(enough, expected.as_ref().map(|_| ()).map_err(Clone::clone));
        prop_assert_eq!(made(Detail::Exact), expected);
    }

    #[test]
    fn no_bytes_panic_or_give_more_pixels_than_allowed(bytes in damaged()) {
        const FEW: u64 = 1 << 17;
        let size = probe(&bytes);
        if let Ok(picture) = decode_rgb(&bytes, FEW) {
            let pixels = u64::from(picture.width) * u64::from(picture.height);
            prop_assert_eq!(size, Ok((picture.width, picture.height)));
            prop_assert!((1..=FEW).contains(&pixels));
            prop_assert_eq!(picture.data.len() as u64, 3 * pixels);
        }
    }
}
