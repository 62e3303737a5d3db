//! The end of a step: whether the gradient is applied, and by which way.

use tch::{Device, Kind, Tensor};

use super::pending::{Pending, Queued};
use super::{MAX_IN_FLIGHT, StepError, StepReport, Trainer};
use crate::clip::LOGIT_SCALE;

/// The largest allowed log of the inverse temperature: ln 100.
const MAX_LOGIT_SCALE: f64 = 4.605_170_185_988_092;

impl Trainer {
    /// Updates the parameters in host memory, if the gradient is finite.
    pub(super) fn apply(&mut self, loss: f64, valid_pairs: u64) {
        let step = self.steps_done;
        let grad_norm = self.gradients.norm().double_value(&[]);
        if !grad_norm.is_finite() {
            let refused = StepError::NotFinite { step, loss, grad_norm };
            self.pending.push_back(Pending::Known(Err(refused)));
            return;
        }
        let lr = self.hyper.learning_rate(step);
        let params = self.model.params_mut();
        self.optimizer.update(params.values_mut(), &self.gradients.parts(), step + 1, lr);
        let _ = tch::no_grad(|| params.master(LOGIT_SCALE).clamp_(0.0, MAX_LOGIT_SCALE));
        params.refresh();
        let logit_scale = self.model.logit_scale();
        let step = step + 1;
        let report = StepReport { step, loss, logit_scale, lr, grad_norm, valid_pairs };
        self.pending.push_back(Pending::Known(Ok(report)));
    }

    /// Queues the update on the device, which applies it if loss and gradient are finite.
    pub(super) fn apply_queued(
        &mut self,
        loss: &Tensor,
        valid_pairs: u64,
    ) -> Result<(), StepError> {
        let _no_graph = tch::no_grad_guard();
        let device = self.model.device();
        let grads = self.gradients.flat().expect("queued gradients are flat");
        let grad_norm = self.gradients.norm();
        let is_finite = loss.isfinite().logical_and(&grad_norm.isfinite());
        let is_refused = is_finite.logical_not().to_kind(Kind::Float);
        let rate = self.queued_rate();
        let step = self.device_step.as_mut().expect("queued updates are counted");
        let _ = step.g_add_scalar_(1.0);
        let params = self.model.params_mut();
        let masters = params.masters();
        self.optimizer.update_on_device(masters, grads, step, &rate, &is_refused)?;
        let _ = step.g_sub_(&is_refused);
        let mut scale = params.master(LOGIT_SCALE);
        let _ = scale.clamp_(0.0, MAX_LOGIT_SCALE);
        params.refresh();
        let figures = [loss, &grad_norm, &scale, &is_refused];
        let figures = figures.map(|it| it.to_kind(Kind::Float).reshape([1]));
        let queued = Queued::new(&Tensor::cat(&figures, 0), is_refused, valid_pairs, device)?;
        self.pending.push_back(Pending::Queued(queued));
        Ok(())
    }

    /// The learning rate of the step being queued: by the updates done before it, of which the last
    /// may not be known yet here, but is on the device.
    fn queued_rate(&self) -> Tensor {
        let device = self.model.device();
        let rate = |step| number_on(device, self.hyper.learning_rate(step));
        let unknown: Vec<&Tensor> = self
            .pending
            .iter()
            .filter_map(
                |it| if let Pending::Queued(it) = it { Some(it.is_refused()) } else { None },
            )
            .collect();
        let (first, second) = (rate(self.steps_done), rate(self.steps_done + 1));
        match unknown.as_slice() {
            [] => first,
            [is_refused] => first.where_self(&is_refused.gt(0.5), &second),
            _ => unreachable!("{MAX_IN_FLIGHT} steps at most are under way"),
        }
    }
}

/// A number `[]` f32, written there by the device itself: a copy would have to be waited for.
pub(super) fn number_on(device: Device, value: f64) -> Tensor {
    Tensor::full([0_i64; 0], value, (Kind::Float, device))
}
