//! Tars and pictures for tests, built member by member.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use crate::tar_file::TarFile;

/// A member of a tar: name and content.
pub type Member = (String, Vec<u8>);

/// The bytes of a tar.
///
/// # Panics
///
/// If a name does not fit a tar.
pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut tar = TarFile::default();
    for (name, content) in members {
        tar.append(name, content).expect("a name that fits");
    }
    tar.finish().expect("memory takes it")
}

/// Writes a tar.
///
/// # Panics
///
/// If the disk refuses.
pub fn write_tar(path: &Path, members: &[Member]) {
    std::fs::write(path, tar(members)).expect("the disk of a test takes it");
}

pub fn member(name: &str, content: impl AsRef<[u8]>) -> Member {
    (name.to_owned(), content.as_ref().to_vec())
}

/// A sound pair: a picture of its own colour, and a caption.
pub fn pair(key: &str, caption: &str) -> Vec<Member> {
    vec![member(&format!("{key}.jpg"), jpeg(8, 8, key)), member(&format!("{key}.txt"), caption)]
}

/// So many sound pairs `<prefix><number>`, their captions of four kinds.
pub fn pairs(prefix: &str, count: usize) -> Vec<Member> {
    let pair =
        |number| pair(&format!("{prefix}{number:03}"), &format!("{} {number}", kind(number)));
    (0..count).flat_map(pair).collect()
}

fn kind(number: usize) -> &'static str {
    ["ant", "bee", "cow", "dog"][number % 4]
}

fn picture(width: u32, height: u32, seed: &str) -> RgbImage {
    let colour = clade_store::digest(seed.as_bytes()).0;
    RgbImage::from_fn(width, height, |x, y| {
        let at = (x as usize + 3 * y as usize) % 29;
        Rgb([colour[at], colour[at + 1], colour[at + 2]])
    })
}

fn encode(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("memory takes it");
    bytes.into_inner()
}

pub fn jpeg(width: u32, height: u32, seed: &str) -> Vec<u8> {
    encode(&picture(width, height, seed), ImageFormat::Jpeg)
}

pub fn png(width: u32, height: u32, seed: &str) -> Vec<u8> {
    encode(&picture(width, height, seed), ImageFormat::Png)
}

/// A small JPEG whose header claims another size.
///
/// # Panics
///
/// If the encoder writes no frame header.
pub fn jpeg_that_claims(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = jpeg(8, 8, "claims");
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame header");
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}
