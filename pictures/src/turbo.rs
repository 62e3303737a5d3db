//! libjpeg-turbo through its TurboJPEG interface: the foreign code of preprocessing, and all of it.
//!
//! TurboJPEG's defaults are what Pillow asks for: the exact inverse transform and smooth chroma.
//! A file with faults that do not stop the decoder, such as a bad Huffman code, is a picture here,
//! since it is one to Pillow, which ignores warnings too. An error refuses the file.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

use turbojpeg_sys as turbo;

/// More than any encoder writes; files of thousands of scans are made to keep decoders busy.
const MOST_SCANS: c_int = 200;

/// What libjpeg-turbo says of faults it decodes across.
///
/// Its error code cannot tell a warning from a warning that an error followed. Its text can: it is
/// that of the first warning until an error replaces it. "Premature end of JPEG file" is a warning
/// too, and is left out: Pillow refuses such files.
const WARNINGS: [&str; 5] = [
    "Corrupt JPEG data: ",
    "Inconsistent progression sequence ",
    "Invalid SOS parameters for sequential JPEG",
    "Unknown Adobe color transform code ",
    "Warning: unknown JFIF revision ",
];

/// How the bytes of a decoded pixel are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    Rgb,
    /// Four inks as the file has them, whether as such or as YCCK.
    Cmyk,
}

/// How a decoded pixel lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pixel {
    /// Three bytes, or four of inks.
    Packed,
    /// Four bytes, the last of them an ink or nothing.
    Padded,
}

/// How many pixels of the file become one, along each side.
///
/// libjpeg-turbo has vectorised inverse transforms for these alone: any other share of the sides
/// takes it longer than the whole picture does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shrink {
    Not,
    Twofold,
    Fourfold,
    Eightfold,
}

impl Shrink {
    /// The strongest first.
    pub(super) const ALL: [Self; 4] = [Self::Eightfold, Self::Fourfold, Self::Twofold, Self::Not];

    pub(super) const fn factor(self) -> u32 {
        match self {
            Self::Not => 1,
            Self::Twofold => 2,
            Self::Fourfold => 4,
            Self::Eightfold => 8,
        }
    }
}

/// A JPEG file whose header has been read.
///
/// It has a decompressor of its own, which takes a microsecond or two: one used before would lend the
/// tables of the last file to a file that lacks them, and so decode what should be refused.
pub(super) struct Jpeg<'a> {
    instance: Instance,
    bytes: &'a [u8],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) colours: Colours,
    is_lossless: bool,
}

impl<'a> Jpeg<'a> {
    /// Reads the header, or says what is wrong with it.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let instance = Instance::new()?;
        // SAFETY: the handle is live and used by this thread alone; pointer and length are one slice's.
        let code = unsafe {
            turbo::tj3DecompressHeader(instance.pointer(), bytes.as_ptr(), length(bytes)?)
        };
        instance.check(code)?;
        let precision = instance.get(turbo::TJPARAM_TJPARAM_PRECISION);
        if precision != 8 {
            return Err(format!("a JPEG of {precision} bits a channel"));
        }
        let side = |parameter| match u32::try_from(instance.get(parameter)) {
            Ok(side) if side > 0 => Ok(side),
            Ok(_) | Err(_) => Err("a JPEG of tables without a picture".to_owned()),
        };
        let width = side(turbo::TJPARAM_TJPARAM_JPEGWIDTH)?;
        let height = side(turbo::TJPARAM_TJPARAM_JPEGHEIGHT)?;
        let colours = match u32::try_from(instance.get(turbo::TJPARAM_TJPARAM_COLORSPACE)) {
            Ok(turbo::TJCS_TJCS_CMYK | turbo::TJCS_TJCS_YCCK) => Colours::Cmyk,
            // Grey is widened to three equal bytes.
            Ok(_) | Err(_) => Colours::Rgb,
        };
        let is_lossless = instance.get(turbo::TJPARAM_TJPARAM_LOSSLESS) != 0;
        Ok(Self { instance, bytes, width, height, colours, is_lossless })
    }

    /// Whether there is an inverse transform to shrink in. Without one libjpeg-turbo ignores the wish.
    pub(super) fn shrinks(&self) -> bool {
        !self.is_lossless
    }

    /// Width and height once decoded.
    pub(super) fn sides(&self, shrink: Shrink) -> (u32, u32) {
        (self.width.div_ceil(shrink.factor()), self.height.div_ceil(shrink.factor()))
    }

    /// Decodes into the first bytes of a buffer, which grows if it must, and returns how many they are.
    ///
    /// # Shapes
    ///
    /// - `buffer`: rows and columns as `sides` says, of pixels of `colours`
    pub(super) fn decode(
        self,
        pixel: Pixel,
        shrink: Shrink,
        buffer: &mut Vec<u8>,
    ) -> Result<usize, String> {
        assert!(shrink == Shrink::Not || self.shrinks(), "a lossless JPEG is decoded whole");
        let (width, height) = self.sides(shrink);
        let Self { instance, bytes, colours, .. } = self;
        let (pixel_bytes, format) = match (colours, pixel) {
            (Colours::Rgb, Pixel::Packed) => (3, turbo::TJPF_TJPF_RGB),
            (Colours::Rgb, Pixel::Padded) => (4, turbo::TJPF_TJPF_RGBX),
            (Colours::Cmyk, Pixel::Packed | Pixel::Padded) => (4, turbo::TJPF_TJPF_CMYK),
        };
        let too_large = || "a picture beyond this machine's memory".to_owned();
        let row = width as usize * pixel_bytes;
        let pitch = c_int::try_from(row).map_err(|_| too_large())?;
        let total = row.checked_mul(height as usize).ok_or_else(too_large)?;
        if buffer.len() < total {
            buffer.resize(total, 0);
        }
        instance.set(turbo::TJPARAM_TJPARAM_SCANLIMIT, MOST_SCANS)?;
        instance.shrink(shrink)?;
        // SAFETY: as in `open`. `buffer` holds `height` rows of `pitch` bytes, and these are the sides
        // the decoder will find: it reads the same header from the same bytes, divides its sides by the
        // factor just set, rounding up, since the file is not lossless, and crops nothing.
        let code = unsafe {
            turbo::tj3Decompress8(
                instance.pointer(),
                bytes.as_ptr(),
                length(bytes)?,
                buffer.as_mut_ptr(),
                pitch,
                format,
            )
        };
        instance.check(code)?;
        Ok(total)
    }
}

/// One decompressor of TurboJPEG's.
struct Instance(NonNull<c_void>);

impl Instance {
    fn new() -> Result<Self, String> {
        // SAFETY: takes no pointer; what it returns is ours until `drop`.
        let handle = unsafe { turbo::tj3Init(turbo::TJINIT_TJINIT_DECOMPRESS.cast_signed()) };
        NonNull::new(handle).map(Self).ok_or_else(|| "libjpeg-turbo does not start".to_owned())
    }

    fn pointer(&self) -> turbo::tjhandle {
        self.0.as_ptr()
    }

    fn get(&self, parameter: turbo::TJPARAM) -> c_int {
        // SAFETY: the handle is live.
        unsafe { turbo::tj3Get(self.pointer(), parameter.cast_signed()) }
    }

    fn set(&self, parameter: turbo::TJPARAM, value: c_int) -> Result<(), String> {
        // SAFETY: the handle is live.
        let code = unsafe { turbo::tj3Set(self.pointer(), parameter.cast_signed(), value) };
        if code == 0 { Ok(()) } else { Err(self.message()) }
    }

    fn shrink(&self, shrink: Shrink) -> Result<(), String> {
        let denom = shrink.factor().cast_signed();
        // SAFETY: the handle is live; the factor is passed by value.
        let code = unsafe {
            turbo::tj3SetScalingFactor(self.pointer(), turbo::tjscalingfactor { num: 1, denom })
        };
        if code == 0 { Ok(()) } else { Err(self.message()) }
    }

    /// Whether a call did its work, though perhaps across faults in the file.
    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        let message = self.message();
        let is_warning = WARNINGS.iter().any(|warning| message.starts_with(warning));
        if is_warning { Ok(()) } else { Err(message) }
    }

    /// What the last call on this thread complained of.
    fn message(&self) -> String {
        // SAFETY: the handle is live; the text ends in a nought and is copied before the next call.
        let text = unsafe { CStr::from_ptr(turbo::tj3GetErrorStr(self.pointer())) };
        text.to_string_lossy().into_owned()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and nothing uses it after this.
        unsafe { turbo::tj3Destroy(self.pointer()) }
    }
}

fn length(bytes: &[u8]) -> Result<turbo::size_t, String> {
    turbo::size_t::try_from(bytes.len())
        .map_err(|_| "a file beyond this machine's memory".to_owned())
}
