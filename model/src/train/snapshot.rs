//! What a model in training is between two steps, set aside so that it can be written while the next are made.

use std::path::Path;
use std::sync::Arc;

use tch::{Device, Tensor};

use crate::flat::Layout;
use crate::native;
use crate::weights::{self, WeightsError};

/// Copies of the weights and of the optimizer's two moments in host memory: 12 bytes a parameter.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) layout: Arc<Layout>,
    /// `[total]` f32, each
    pub(super) values: Tensor,
    pub(super) first: Tensor,
    pub(super) second: Tensor,
    pub(super) step: u64,
}

impl Snapshot {
    /// Updates done, counted from the seed model.
    pub const fn step(&self) -> u64 {
        self.step
    }

    /// Writes model and optimizer, as [`super::Trainer::save`] does.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Broken`] if a value is not finite: nothing is left behind that could be gone on from.
    pub fn write(&self, model: &Path, optimizer: &Path) -> Result<(), WeightsError> {
        weights::write_model(model, &self.layout, native::values(&self.values))?;
        let (first, second) = (native::values(&self.first), native::values(&self.second));
        weights::write_optimizer(optimizer, &self.layout, first, second, self.step)
    }
}

/// A copy in host memory, also of what lies there already.
pub(super) fn copied(tensor: &Tensor) -> Tensor {
    if tensor.device() == Device::Cpu { tensor.copy() } else { tensor.to_device(Device::Cpu) }
}
