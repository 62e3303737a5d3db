//! Near-duplicates: a 64-bit perceptual hash, and groups of close hashes.
//!
//! The hash is pHash: of the picture's luminance at 32x32, the 64 lowest
//! frequencies of its cosine transform without the mean, in zig-zag order, one
//! bit each: whether it exceeds their median. All of it is integer arithmetic,
//! so a picture has the same hash on every machine.

use std::f64::consts::PI;
use std::sync::LazyLock;

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, RgbImage};

/// Named in the manifest: another method makes other groups.
pub(crate) const METHOD: &str =
    "pHash: 64 lowest AC coefficients of a 32x32 DCT, zig-zag, above their median";

/// Hashes that differ in at most this many bits are near-duplicates.
pub(crate) const NEAR: u32 = 4;

const SIDE: usize = 32;
/// Frequencies below this in each direction hold the first 64 of the zig-zag.
const FREQUENCIES: usize = 11;
/// One unit of the cosine table.
const UNIT: f64 = 4096.0;
/// Coefficients are cut to whole grey levels, so that what is zero in a flat or
/// symmetric picture is zero, and no noise decides its bits.
const GREY_LEVEL: i64 = 4096 * 4096 * 16;

static COSINES: LazyLock<[[i64; SIDE]; FREQUENCIES]> = LazyLock::new(|| {
    let mut table = [[0; SIDE]; FREQUENCIES];
    for (frequency, row) in (0u32..).zip(&mut table) {
        for (at, cosine) in (0u32..).zip(row) {
            let angle = PI / 32.0 * (f64::from(at) + 0.5) * f64::from(frequency);
            #[expect(clippy::cast_possible_truncation, reason = "within 4096 of zero")]
            {
                *cosine = (angle.cos() * UNIT).round() as i64;
            }
        }
    }
    table
});

/// The perceptual hash of a picture.
pub(crate) fn of(rgb: &RgbImage) -> u64 {
    let mut grey = image::GrayImage::new(32, 32);
    let luminance = DynamicImage::ImageRgb8(rgb.clone()).into_luma8();
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize(&luminance, &mut grey, &options)
        .expect("both pictures are grey, of eight bits, and not empty");

    let coefficients = lowest(grey.as_raw());
    let mut sorted = coefficients;
    sorted.sort_unstable();
    let median = sorted[31];
    (0..64).filter(|&bit| coefficients[bit] > median).fold(0, |hash, bit| hash | 1 << bit)
}

fn lowest(grey: &[u8]) -> [i64; 64] {
    // By rows: [SIDE, FREQUENCIES], then by columns, only where it is needed.
    let mut rows = [[0i64; FREQUENCIES]; SIDE];
    for (row, pixels) in rows.iter_mut().zip(grey.chunks_exact(SIDE)) {
        for (sum, cosines) in row.iter_mut().zip(COSINES.iter()) {
            *sum =
                pixels.iter().zip(cosines).map(|(&pixel, cosine)| i64::from(pixel) * cosine).sum();
        }
    }
    let mut lowest = [0; 64];
    for (coefficient, (down, across)) in lowest.iter_mut().zip(zigzag()) {
        let sum: i64 =
            rows.iter().zip(&COSINES[down]).map(|(row, cosine)| row[across] * cosine).sum();
        *coefficient = sum / GREY_LEVEL;
    }
    lowest
}

/// The lowest frequencies first, without the mean: `(down, across)`.
fn zigzag() -> impl Iterator<Item = (usize, usize)> {
    (1..FREQUENCIES).flat_map(|diagonal| (0..=diagonal).map(move |down| (down, diagonal - down)))
}

/// Connected components of near hashes, each in rising order, in order of their
/// first members. All pairs are compared: nothing is missed.
pub(crate) fn groups(hashes: &[u64]) -> Vec<Vec<usize>> {
    let mut parent: Vec<usize> = (0..hashes.len()).collect();
    for (later, hash) in hashes.iter().enumerate() {
        for (earlier, other) in hashes[..later].iter().enumerate() {
            if (hash ^ other).count_ones() <= NEAR {
                let (a, b) = (find(&mut parent, earlier), find(&mut parent, later));
                parent[a.max(b)] = a.min(b);
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); hashes.len()];
    for member in 0..hashes.len() {
        groups[find(&mut parent, member)].push(member);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn find(parent: &mut [usize], mut member: usize) -> usize {
    while parent[member] != member {
        parent[member] = parent[parent[member]];
        member = parent[member];
    }
    member
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use image::imageops::{self, FilterType as Filter};

    use super::*;

    fn blob(x0: f32, y0: f32) -> RgbImage {
        RgbImage::from_fn(160, 128, |x, y| {
            let (x, y) =
                (f32::from(u16::try_from(x).unwrap()), f32::from(u16::try_from(y).unwrap()));
            let inside = ((x - x0) / 50.0).powi(2) + ((y - y0) / 30.0).powi(2) < 1.0;
            if inside { Rgb([30, 60, 200]) } else { Rgb([255; 3]) }
        })
    }

    fn distance(a: &RgbImage, b: &RgbImage) -> u32 {
        (of(a) ^ of(b)).count_ones()
    }

    #[test]
    fn the_zigzag_has_64_frequencies_and_no_mean() {
        let first: Vec<_> = zigzag().take(64).collect();
        assert_eq!(first.len(), 64);
        assert_eq!(first[..3], [(0, 1), (1, 0), (0, 2)]);
    }

    #[test]
    fn a_rescaled_picture_is_near_and_another_is_not() {
        let picture = blob(70.0, 50.0);
        let rescaled = imageops::resize(&picture, 300, 240, Filter::CatmullRom);
        let brighter = imageops::colorops::brighten(&picture, 15);
        assert!(distance(&picture, &rescaled) <= NEAR);
        assert!(distance(&picture, &brighter) <= NEAR);
        assert!(distance(&picture, &blob(120.0, 90.0)) > NEAR);
    }

    #[test]
    fn flat_pictures_of_any_colour_are_near() {
        let flat = |color| RgbImage::from_pixel(128, 200, Rgb(color));
        assert_eq!(distance(&flat([255; 3]), &flat([3, 90, 14])), 0);
    }

    #[test]
    fn groups_are_chains_of_near_hashes() {
        let chain = [0, 0b1111, 0b1111_1111, u64::MAX, 0b1111 << 40 | 0b1111_1111];
        assert_eq!(groups(&chain), [vec![0, 1, 2, 4], vec![3]]);
        assert_eq!(groups(&[0, 0b1_1111]), [vec![0], vec![1]]);
        assert!(groups(&[]).is_empty());
    }
}
