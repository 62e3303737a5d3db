//! A picture to the square a model sees, as bytes by channel.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8x3, U8x4};
use fast_image_resize::{FilterType, ImageView, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use super::RgbImage;
use super::crop::{Crop, drawn_crop};

/// How a picture becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// Shortest side to the size, then the centre.
    Shortest,
    /// Both sides to the size, whatever the aspect.
    Squash,
}

/// The filter of resizing, with antialias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    Bicubic,
    Bilinear,
}

/// The part of a picture that becomes the square, in fractions of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A pixel of three colours, whatever its bytes in memory.
pub(super) trait Colour: PixelTrait {
    fn rgb(self) -> [u8; 3];
}

impl Colour for U8x3 {
    fn rgb(self) -> [u8; 3] {
        self.0
    }
}

/// The fourth byte pads.
impl Colour for U8x4 {
    fn rgb(self) -> [u8; 3] {
        let [red, green, blue, _] = self.0;
        [red, green, blue]
    }
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
    let side = side(size);
    let (window, resized) = match mode {
        ResizeMode::Shortest => centre(image, side),
        ResizeMode::Squash => {
            let (width, height) = (f64::from(image.width), f64::from(image.height));
            let whole = Window { left: 0.0, top: 0.0, width, height };
            (whole, (u64::from(side), u64::from(side)))
        }
    };
    let order = Order::of((image.width, image.height), resized);
    let mut square = vec![0; 3 * size * size];
    Workbench::default().resize(&view(image), &window, interpolation, order, side, &mut square);
    square
}

/// Which way a picture is resized first: the rounding in between shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
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
        let offset = ((resized - u64::from(side)) as f64 / 2.0).round_ties_even(); // Python's `round`
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
    crop_pixels(image, side(size), drawn_crop((image.width, image.height), draw))
}

/// Resizes a part of a picture.
///
/// # Shapes
///
/// - returns `[3, side, side]`
pub(super) fn crop_pixels(image: &RgbImage, side: u32, crop: Crop) -> Vec<u8> {
    let mut square = vec![0; 3 * side as usize * side as usize];
    Workbench::default().resize_crop(&view(image), crop, side, &mut square);
    square
}

pub(super) fn side(size: usize) -> u32 {
    u32::try_from(size).expect("a picture's side fits 32 bits")
}

pub(super) fn view(image: &RgbImage) -> TypedImageRef<'_, U8x3> {
    TypedImageRef::from_buffer(image.width, image.height, &image.data)
        .expect("three bytes for each pixel of a picture that is not empty")
}

/// What resizing needs beside the picture, kept from one to the next.
#[derive(Default)]
pub(super) struct Workbench {
    resizer: Resizer,
    /// A picture resized one way.
    between: Vec<u8>,
    /// `[side, side, pixel]`
    square: Vec<u8>,
}

impl Workbench {
    /// Bytes that are kept.
    pub(super) fn size(&self) -> usize {
        self.between.len() + self.square.len() + self.resizer.size_of_internal_buffers()
    }

    /// Resizes a part of a picture as if there were nothing around it: the filter meets its borders.
    ///
    /// # Shapes
    ///
    /// - `out`: `[3, side, side]`
    pub(super) fn resize_crop<P: Colour>(
        &mut self,
        source: &impl ImageView<Pixel = P>,
        crop: Crop,
        side: u32,
        out: &mut [u8],
    ) {
        let Crop { left, top, width, height } = crop;
        let part = TypedCroppedImage::from_ref(source, left, top, width, height)
            .expect("the crop lies within the picture");
        let order = Order::of((width, height), (u64::from(side), u64::from(side)));
        let (width, height) = (f64::from(width), f64::from(height));
        let window = Window { left: 0.0, top: 0.0, width, height };
        self.resize(&part, &window, Interpolation::Bicubic, order, side, out);
    }

    /// Resizes a window, one way and then the other.
    ///
    /// # Shapes
    ///
    /// - `out`: `[3, side, side]`
    pub(super) fn resize<P: Colour>(
        &mut self,
        source: &impl ImageView<Pixel = P>,
        window: &Window,
        interpolation: Interpolation,
        order: Order,
        side: u32,
        out: &mut [u8],
    ) {
        let filter = match interpolation {
            Interpolation::Bicubic => FilterType::CatmullRom,
            Interpolation::Bilinear => FilterType::Bilinear,
        };
        let Self { resizer, between, square } = self;
        let (width, height) = (f64::from(source.width()), f64::from(source.height()));
        // Rounding may put the window a hair outside.
        let window_width = window.width.min(width - window.left);
        let window_height = window.height.min(height - window.top);
        // A fourth byte is no alpha.
        let filtered =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
        let fits = "the window lies within the picture";
        let mut target = image::<P>(square, side, side);
        match order {
            Order::AcrossFirst => {
                let mut between = image::<P>(between, side, source.height());
                let options = filtered.crop(window.left, 0.0, window_width, height);
                resizer.resize_typed(source, &mut between, &options).expect(fits);
                let options = filtered.crop(0.0, window.top, f64::from(side), window_height);
                resizer.resize_typed(&between, &mut target, &options).expect(fits);
            }
            Order::DownFirst => {
                let mut between = image::<P>(between, source.width(), side);
                let options = filtered.crop(0.0, window.top, width, window_height);
                resizer.resize_typed(source, &mut between, &options).expect(fits);
                let options = filtered.crop(window.left, 0.0, window_width, f64::from(side));
                resizer.resize_typed(&between, &mut target, &options).expect(fits);
            }
        }
        by_channel(target.pixels(), out);
    }
}

/// An image in a buffer that grows if it must. Its pixels are those of some earlier use.
fn image<P: Colour>(buffer: &mut Vec<u8>, width: u32, height: u32) -> TypedImage<'_, P> {
    let length = width as usize * height as usize * P::size();
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    TypedImage::from_buffer(width, height, &mut buffer[..length])
        .expect("bytes need no alignment, and there are enough")
}

/// `[height, width, pixel]` to `[3, height, width]`.
fn by_channel<P: Colour>(pixels: &[P], out: &mut [u8]) {
    let (red, others) = out.split_at_mut(pixels.len());
    let (green, blue) = others.split_at_mut(pixels.len());
    for (((pixel, red), green), blue) in pixels.iter().zip(red).zip(green).zip(blue) {
        [*red, *green, *blue] = pixel.rgb();
    }
}
