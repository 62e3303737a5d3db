//! The pixels of a batch in host memory, written once and sent to a device from where they lie.

use std::fmt;
use std::ops::Deref;

use tch::{Device, Kind, Tensor};

use crate::native::{self, NativeError};

/// Bytes that a device fetches without another copy: pinned, if they were made for a GPU.
pub struct Pixels {
    /// `[bytes]` u8, contiguous, on the CPU.
    memory: Tensor,
    is_pinned: bool,
}

impl Pixels {
    /// Memory of `bytes` bytes for a batch that goes to `device`; what it holds is left to chance.
    ///
    /// Memory that cannot be pinned is taken as it is: sending it takes a copy more.
    pub fn for_device(bytes: usize, device: Device) -> Self {
        if device.is_cuda()
            // If not, the next allocation on the device says what is wrong with it.
            && let Ok(memory) = native::pinned_bytes(bytes)
        {
            return Self { memory, is_pinned: true };
        }
        let length = i64::try_from(bytes).expect("a batch fits memory");
        let memory = Tensor::empty([length], (Kind::Uint8, Device::Cpu));
        Self { memory, is_pinned: false }
    }

    /// A part of them on `device`; nobody waits for a GPU. The bytes must not change any more.
    ///
    /// # Shapes
    ///
    /// - returns `[range]` u8
    pub(crate) fn send(
        &self,
        range: std::ops::Range<usize>,
        device: Device,
    ) -> Result<Tensor, NativeError> {
        let at = |place: usize| i64::try_from(place).expect("a batch fits memory");
        let part = || self.memory.narrow(0, at(range.start), at(range.len()));
        match device {
            Device::Cuda(_) if self.is_pinned => {
                Ok(part().to_device_(device, Kind::Uint8, true, false))
            }
            Device::Cuda(index) => native::upload_bytes(&self[range], index),
            Device::Cpu | Device::Mps | Device::Vulkan => Ok(part()),
        }
    }
}

impl From<Vec<u8>> for Pixels {
    fn from(bytes: Vec<u8>) -> Self {
        Self { memory: Tensor::from_slice(&bytes), is_pinned: false }
    }
}

impl Default for Pixels {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl Clone for Pixels {
    fn clone(&self) -> Self {
        Self::from(self.to_vec())
    }
}

impl Deref for Pixels {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        native::bytes(&self.memory)
    }
}

impl AsMut<[u8]> for Pixels {
    fn as_mut(&mut self) -> &mut [u8] {
        native::bytes_mut(&mut self.memory)
    }
}

impl PartialEq for Pixels {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Pixels {}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of pixels", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_what_is_sent() {
        let mut pixels = Pixels::for_device(12, Device::Cpu);
        for (value, byte) in (0..).zip(pixels.as_mut()) {
            *byte = value;
        }
        let sent = pixels.send(3..6, Device::Cpu).unwrap();
        assert_eq!(Vec::<u8>::try_from(&sent).unwrap(), [3, 4, 5]);
        assert_eq!(sent.data_ptr().cast::<u8>().cast_const(), pixels[3..].as_ptr(), "no copy");
        assert_eq!(pixels.clone(), pixels);
        assert_ne!(pixels, Pixels::default());
    }
}
