//! Steps begun whose outcome nobody has asked for.

use tch::{Device, Kind, Tensor};

use super::{StepError, StepReport, TrainHyper};
use crate::native::{Event, NativeError};

/// A step under way.
#[derive(Debug)]
pub(super) enum Pending {
    Known(Result<StepReport, StepError>),
    Queued(Queued),
}

/// A step queued on a device, which decides by itself whether to apply it.
#[derive(Debug)]
pub(super) struct Queued {
    /// `[4]` f32 in host memory: loss, gradient norm, logit scale after, 1 if it was refused. Filled
    /// when the device has come to `copied`.
    figures: Tensor,
    copied: Option<Event>,
    /// `[]` f32 on the device: 1 if the step was refused.
    is_refused: Tensor,
    valid_pairs: u64,
}

impl Queued {
    /// Queues the copy of a step's figures to the host, without waiting for it.
    pub(super) fn new(
        figures: &Tensor,
        is_refused: Tensor,
        valid_pairs: u64,
        device: Device,
    ) -> Result<Self, NativeError> {
        let (figures, copied) = match device {
            Device::Cuda(index) => {
                // A copy that nobody waits for goes to pinned memory.
                let host = figures.to_device_(Device::Cpu, Kind::Float, true, false);
                (host, Some(Event::record(index)?))
            }
            Device::Cpu | Device::Mps | Device::Vulkan => (figures.to_device(Device::Cpu), None),
        };
        Ok(Self { figures, copied, is_refused, valid_pairs })
    }

    pub(super) const fn is_refused(&self) -> &Tensor {
        &self.is_refused
    }

    /// Waits for the step and reports it.
    pub(super) fn read(self, steps_done: u64, hyper: &TrainHyper) -> Result<StepReport, StepError> {
        if let Some(copied) = &self.copied {
            copied.wait()?;
        }
        let figures = [0, 1, 2, 3].map(|place| self.figures.double_value(&[place]));
        let [loss, grad_norm, logit_scale, is_refused] = figures;
        if is_refused != 0.0 {
            return Err(StepError::NotFinite { step: steps_done, loss, grad_norm });
        }
        let (step, lr) = (steps_done + 1, hyper.learning_rate(steps_done));
        let valid_pairs = self.valid_pairs;
        Ok(StepReport { step, loss, logit_scale, lr, grad_norm, valid_pairs })
    }
}
