//! The random part of a picture that one step of training sees.

use clade_core::order::Random;

/// Share of the picture's area a training crop keeps.
const CROP_SCALE: (f64, f64) = (0.9, 1.0);
/// Width over height of a training crop.
const CROP_RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
const CROP_ATTEMPTS: usize = 10;

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

/// The part of a picture of these sides that `draw` chooses.
pub fn drawn_crop((width, height): (u32, u32), draw: u64) -> Crop {
    random_crop(width, height, &mut Random::new(draw))
}

fn random_crop(width: u32, height: u32, rng: &mut Random) -> Crop {
    let area = f64::from(width) * f64::from(height);
    let (low, high) = (CROP_RATIO.0.ln(), CROP_RATIO.1.ln());
    for _ in 0..CROP_ATTEMPTS {
        let target = area * (CROP_SCALE.0 + (CROP_SCALE.1 - CROP_SCALE.0) * rng.unit());
        let ratio = (low + (high - low) * rng.unit()).exp();
        let (w, h) = (whole((target * ratio).sqrt()), whole((target / ratio).sqrt()));
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = place(height - h, rng);
            let left = place(width - w, rng);
            return Crop { left, top, width: w, height: h };
        }
    }
    // No attempt fitted: the largest centred crop of an allowed ratio.
    let ratio = f64::from(width) / f64::from(height);
    let (w, h) = if ratio < CROP_RATIO.0 {
        (width, whole(f64::from(width) / CROP_RATIO.0).clamp(1, height))
    } else if ratio > CROP_RATIO.1 {
        (whole(f64::from(height) * CROP_RATIO.1).clamp(1, width), height)
    } else {
        (width, height)
    };
    Crop { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

fn place(slack: u32, rng: &mut Random) -> u32 {
    u32::try_from(rng.below(u64::from(slack) + 1)).expect("below a u32")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is checked"
)]
fn whole(length: f64) -> u32 {
    length.round_ties_even() as u32 // Python's `round`
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_keep_nine_tenths_and_lie_within_the_picture() {
        for (width, height) in [(1, 1), (40, 40), (128, 190), (3, 500), (700, 2)] {
            for draw in 0..50 {
                let crop = random_crop(width, height, &mut Random::new(draw));
                assert!(crop.width >= 1 && crop.left + crop.width <= width, "{crop:?}");
                assert!(crop.height >= 1 && crop.top + crop.height <= height, "{crop:?}");
            }
        }
        let mut shares = (0..50).map(|draw| {
            let crop = random_crop(400, 400, &mut Random::new(draw));
            f64::from(crop.width * crop.height) / 160_000.0
        });
        assert!(shares.all(|share| share > 0.89), "a crop lost more than a tenth");
    }

    #[test]
    fn the_draw_alone_decides_the_crop() {
        let crop = |draw| random_crop(128, 160, &mut Random::new(draw));
        assert_eq!(crop(11), crop(11));
        assert!((0..20).any(|draw| crop(draw) != crop(11)));
    }
}
