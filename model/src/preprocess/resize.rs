//! A picture to the square a model sees, as bytes by channel.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ImageView, ResizeAlg, ResizeOptions, Resizer};

use super::RgbImage;
use crate::config::{Interpolation, ResizeMode};
use crate::rng::Rng;

/// Share of the picture's area a training crop keeps.
const CROP_SCALE: (f64, f64) = (0.9, 1.0);
/// Width over height of a training crop.
const CROP_RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
const CROP_ATTEMPTS: usize = 10;

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crop {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The part of a picture that becomes the square, in fractions of pixels.
struct Window {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

/// Resizes the shortest side to `size` and crops the centre, as most models want it.
///
/// # Shapes
///
/// - returns `[3, size, size]`
pub fn eval_pixels(image: &RgbImage, size: usize) -> Vec<u8> {
    eval_pixels_as(image, size, ResizeMode::Shortest, Interpolation::Bicubic)
}

/// Makes the square that a model sees in evaluation.
///
/// # Shapes
///
/// - returns `[3, size, size]`
pub fn eval_pixels_as(
    image: &RgbImage,
    size: usize,
    mode: ResizeMode,
    interpolation: Interpolation,
) -> Vec<u8> {
    let side = u32::try_from(size).expect("a picture's side fits 32 bits");
    let (window, resized) = match mode {
        ResizeMode::Shortest => centre(image, side),
        ResizeMode::Squash => {
            let (width, height) = (f64::from(image.width), f64::from(image.height));
            let whole = Window { left: 0.0, top: 0.0, width, height };
            (whole, (u64::from(side), u64::from(side)))
        }
    };
    let order = Order::of((image.width, image.height), resized);
    resize(&view(image), &window, side, interpolation, order)
}

/// Which way a picture is resized first: the rounding in between shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    AcrossFirst,
    DownFirst,
}

impl Order {
    /// As Pillow 13 does it: down first if that takes away more than twice the rows than going
    /// across takes away columns. (Found by trying 3,000 sizes; older ones always go across first.)
    fn of((width, height): (u32, u32), (to_width, to_height): (u64, u64)) -> Self {
        let less = |from: u32, to: u64| i64::from(from).saturating_sub_unsigned(to);
        let (columns, rows) = (less(width, to_width), less(height, to_height));
        if rows > 0 && rows > 2 * columns { Self::DownFirst } else { Self::AcrossFirst }
    }
}

/// The square in the middle, and the size of the whole picture when resized.
fn centre(image: &RgbImage, side: u32) -> (Window, (u64, u64)) {
    // The filter reaches beyond the window, so resizing the window alone equals resizing the whole
    // and cropping, without the thousands of pixels a very long picture would get.
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let short = image.width.min(image.height);
    let axis = |length: u32, extent: f64| {
        let resized = if length == short {
            u64::from(side)
        } else {
            u64::from(side) * u64::from(length) / u64::from(short)
        };
        let scale = extent / resized as f64;
        let offset = round_half_even((resized - u64::from(side)) as f64 / 2.0);
        (offset * scale, f64::from(side) * scale, resized)
    };
    let (left, window_width, to_width) = axis(image.width, width);
    let (top, window_height, to_height) = axis(image.height, height);
    let window = Window { left, top, width: window_width, height: window_height };
    (window, (to_width, to_height))
}

/// Takes a random crop of 0.9–1.0 of the area, as torchvision's `RandomResizedCrop`.
///
/// `draw` decides everything: the caller's hash of (seed, epoch, key).
///
/// # Shapes
///
/// - returns `[3, size, size]`
pub fn train_pixels(image: &RgbImage, size: usize, draw: u64) -> Vec<u8> {
    let side = u32::try_from(size).expect("a picture's side fits 32 bits");
    crop_pixels(image, side, random_crop(image.width, image.height, &mut Rng::new(draw)))
}

/// Resizes a part of a picture as if there were nothing around it: the filter meets its borders.
///
/// # Shapes
///
/// - returns `[3, side, side]`
pub(super) fn crop_pixels(image: &RgbImage, side: u32, crop: Crop) -> Vec<u8> {
    let Crop { left, top, width, height } = crop;
    let whole = view(image);
    let part = TypedCroppedImage::from_ref(&whole, left, top, width, height)
        .expect("the crop lies within the picture");
    let order = Order::of((width, height), (u64::from(side), u64::from(side)));
    let (width, height) = (f64::from(width), f64::from(height));
    let window = Window { left: 0.0, top: 0.0, width, height };
    resize(&part, &window, side, Interpolation::Bicubic, order)
}

fn random_crop(width: u32, height: u32, rng: &mut Rng) -> Crop {
    let area = f64::from(width) * f64::from(height);
    let (low, high) = (CROP_RATIO.0.ln(), CROP_RATIO.1.ln());
    for _ in 0..CROP_ATTEMPTS {
        let target = area * (CROP_SCALE.0 + (CROP_SCALE.1 - CROP_SCALE.0) * rng.uniform());
        let ratio = (low + (high - low) * rng.uniform()).exp();
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

fn place(slack: u32, rng: &mut Rng) -> u32 {
    u32::try_from(rng.below(slack as usize + 1)).expect("below a u32")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is checked"
)]
fn whole(length: f64) -> u32 {
    round_half_even(length) as u32
}

/// Python's `round`.
fn round_half_even(value: f64) -> f64 {
    value.round_ties_even()
}

fn view(image: &RgbImage) -> TypedImageRef<'_, U8x3> {
    TypedImageRef::from_buffer(image.width, image.height, &image.data)
        .expect("three bytes for each pixel of a picture that is not empty")
}

/// Resizes a window, one way and then the other.
fn resize(
    source: &impl ImageView<Pixel = U8x3>,
    window: &Window,
    side: u32,
    interpolation: Interpolation,
    order: Order,
) -> Vec<u8> {
    let filter = match interpolation {
        Interpolation::Bicubic => FilterType::CatmullRom,
        Interpolation::Bilinear => FilterType::Bilinear,
    };
    let (width, height) = (f64::from(source.width()), f64::from(source.height()));
    let mut target = TypedImage::new(side, side);
    // Rounding may put the window a hair outside.
    let window_width = window.width.min(width - window.left);
    let window_height = window.height.min(height - window.top);
    let mut resizer = Resizer::new();
    let filtered = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    let fits = "the window lies within the picture";
    match order {
        Order::AcrossFirst => {
            let mut between = TypedImage::new(side, source.height());
            let options = filtered.crop(window.left, 0.0, window_width, height);
            resizer.resize_typed(source, &mut between, &options).expect(fits);
            let options = filtered.crop(0.0, window.top, f64::from(side), window_height);
            resizer.resize_typed(&between, &mut target, &options).expect(fits);
        }
        Order::DownFirst => {
            let mut between = TypedImage::new(source.width(), side);
            let options = filtered.crop(0.0, window.top, width, window_height);
            resizer.resize_typed(source, &mut between, &options).expect(fits);
            let options = filtered.crop(window.left, 0.0, window_width, f64::from(side));
            resizer.resize_typed(&between, &mut target, &options).expect(fits);
        }
    }
    by_channel(target.pixels())
}

/// `[height, width, 3]` to `[3, height, width]`.
fn by_channel(pixels: &[U8x3]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 * pixels.len());
    for channel in 0..3 {
        out.extend(pixels.iter().map(|pixel| pixel.0[channel]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_keep_nine_tenths_and_lie_within_the_picture() {
        for (width, height) in [(1, 1), (40, 40), (128, 190), (3, 500), (700, 2)] {
            for draw in 0..50 {
                let crop = random_crop(width, height, &mut Rng::new(draw));
                assert!(crop.width >= 1 && crop.left + crop.width <= width, "{crop:?}");
                assert!(crop.height >= 1 && crop.top + crop.height <= height, "{crop:?}");
            }
        }
        let mut shares = (0..50).map(|draw| {
            let crop = random_crop(400, 400, &mut Rng::new(draw));
            f64::from(crop.width * crop.height) / 160_000.0
        });
        assert!(shares.all(|share| share > 0.89), "a crop lost more than a tenth");
    }

    #[test]
    fn the_draw_alone_decides_the_crop() {
        let crop = |draw| random_crop(128, 160, &mut Rng::new(draw));
        assert_eq!(crop(11), crop(11));
        assert!((0..20).any(|draw| crop(draw) != crop(11)));
    }
}
