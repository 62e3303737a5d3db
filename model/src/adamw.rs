//! AdamW with decoupled weight decay, over flat buffers.
//!
//! One pass over memory per update: a small CLIP's token table is most of its parameters, and a
//! pass is what an update costs. In host memory the loop is ours: every element is computed by
//! itself, so ranks with other processors or numbers of threads end with the same bits. On a GPU it
//! is torch's fused kernel. Decay touches a prefix of the buffers (see [`crate::flat`]).

use std::ops::Range;
use std::thread;

use tch::{Device, Kind, Tensor};

use crate::native::{self, FusedAdamW, NativeError};
use crate::threads;

/// Below this many elements per thread a further thread costs more than it saves.
const MIN_CHUNK: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

/// The optimizer's two moments, each one f32 tensor `[total]` on the model's device.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    /// Elements before this index decay.
    decayed: usize,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

/// Factors of one update, the same for all elements but for the decay.
#[derive(Clone, Copy)]
struct Factors {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    /// `lr / (1 - beta1^t)`
    rate: f32,
    /// `1 / sqrt(1 - beta2^t)`
    root: f32,
    eps: f32,
    /// `1 - lr · weight decay`, or 1
    keep: f32,
}

impl AdamW {
    /// Starts with both moments at nought.
    pub fn new(options: AdamWOptions, total: usize, decayed: usize, device: Device) -> Self {
        let total = i64::try_from(total).expect("a buffer fits memory");
        let moment = || Tensor::zeros([total], (Kind::Float, device));
        Self { options, decayed, exp_avg: moment(), exp_avg_sq: moment() }
    }

    /// Goes on from saved moments.
    pub fn with_state(
        options: AdamWOptions,
        decayed: usize,
        exp_avg: &[f32],
        exp_avg_sq: &[f32],
        device: Device,
    ) -> Self {
        assert_eq!(exp_avg.len(), exp_avg_sq.len(), "both moments cover all parameters");
        assert!(decayed <= exp_avg.len(), "what decays is part of the parameters");
        let moment = |values: &[f32]| Tensor::from_slice(values).to_device(device);
        Self { options, decayed, exp_avg: moment(exp_avg), exp_avg_sq: moment(exp_avg_sq) }
    }

    /// Both moments, where they lie.
    pub(crate) fn moments(&self) -> [&Tensor; 2] {
        [&self.exp_avg, &self.exp_avg_sq]
    }

    /// Copies of both moments in host memory.
    pub fn to_host(&self) -> (Tensor, Tensor) {
        (self.exp_avg.to_device(Device::Cpu), self.exp_avg_sq.to_device(Device::Cpu))
    }

    /// Applies one update in place, in host memory.
    ///
    /// `parts` are gradients with where they lie in the buffers; what none covers stays as it is.
    /// `update` counts from 1 and sets the bias correction.
    pub fn update(
        &mut self,
        params: &mut [f32],
        parts: &[(Range<usize>, &[f32])],
        update: u64,
        learning_rate: f64,
    ) {
        let first = native::values_mut(&mut self.exp_avg);
        let second = native::values_mut(&mut self.exp_avg_sq);
        assert_eq!(params.len(), first.len(), "the optimizer was made for other parameters");
        let decays = factors(self.options, update, learning_rate, self.options.weight_decay);
        let stays = factors(self.options, update, learning_rate, 0.0);
        for (whole, grads) in parts {
            assert_eq!(whole.len(), grads.len(), "a gradient for every parameter");
            let split = self.decayed.clamp(whole.start, whole.end);
            for (range, factors) in [(whole.start..split, decays), (split..whole.end, stays)] {
                if range.is_empty() {
                    continue;
                }
                let start = range.start - whole.start;
                sweep(
                    &mut params[range.clone()],
                    &grads[start..start + range.len()],
                    &mut first[range.clone()],
                    &mut second[range],
                    factors,
                );
            }
        }
    }

    /// Queues one update on the device the tensors lie on, without waiting for it.
    ///
    /// # Shapes
    ///
    /// - `params`, `grads`: `[total]`
    /// - `step`, `rate`, `found_infinity`: `[]` f32; if the last is 1 nothing changes
    pub(crate) fn update_on_device(
        &mut self,
        params: &Tensor,
        grads: &Tensor,
        step: &Tensor,
        rate: &Tensor,
        found_infinity: &Tensor,
    ) -> Result<(), NativeError> {
        let AdamWOptions { beta1, beta2, eps, weight_decay } = self.options;
        let total = params.size()[0];
        let decayed = i64::try_from(self.decayed).expect("a buffer fits memory");
        for (start, length, decay) in [(0, decayed, weight_decay), (decayed, total - decayed, 0.0)]
        {
            if length == 0 {
                continue;
            }
            let tensors = FusedAdamW {
                param: &params.narrow(0, start, length),
                gradient: &grads.narrow(0, start, length),
                first: &self.exp_avg.narrow(0, start, length),
                second: &self.exp_avg_sq.narrow(0, start, length),
                step,
                rate,
                found_infinity,
            };
            native::fused_adamw(&tensors, (beta1, beta2), decay, eps)?;
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "computed in f64, applied in f32 as torch does"
)]
fn factors(options: AdamWOptions, update: u64, learning_rate: f64, decay: f64) -> Factors {
    let AdamWOptions { beta1, beta2, eps, weight_decay: _ } = options;
    let correction = |beta: f64| 1.0 - beta.powf(update as f64);
    Factors {
        beta1: beta1 as f32,
        rest1: (1.0 - beta1) as f32,
        beta2: beta2 as f32,
        rest2: (1.0 - beta2) as f32,
        rate: (learning_rate / correction(beta1)) as f32,
        root: correction(beta2).sqrt().recip() as f32,
        eps: eps as f32,
        keep: (1.0 - learning_rate * decay) as f32,
    }
}

/// Spreads one region over the threads that tensor operations may use.
fn sweep(
    params: &mut [f32],
    grads: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    factors: Factors,
) {
    let threads = threads::intra_op().min(params.len() / MIN_CHUNK).max(1);
    if threads == 1 {
        return update_chunk(params, grads, first, second, factors);
    }
    let chunk = params.len().div_ceil(threads);
    thread::scope(|scope| {
        let parts = params
            .chunks_mut(chunk)
            .zip(grads.chunks(chunk))
            .zip(first.chunks_mut(chunk))
            .zip(second.chunks_mut(chunk));
        for (((params, grads), first), second) in parts {
            scope.spawn(move || update_chunk(params, grads, first, second, factors));
        }
    });
}

fn update_chunk(
    params: &mut [f32],
    grads: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    factors: Factors,
) {
    let Factors { beta1, rest1, beta2, rest2, rate, root, eps, keep } = factors;
    let moments = first.iter_mut().zip(second.iter_mut());
    for ((param, &grad), (first, second)) in params.iter_mut().zip(grads).zip(moments) {
        *first = *first * beta1 + grad * rest1;
        *second = *second * beta2 + grad * grad * rest2;
        *param = *param * keep - rate * *first / (second.sqrt() * root + eps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: AdamWOptions =
        AdamWOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.2 };

    /// ```python
    /// w = torch.nn.Parameter(torch.tensor([[0.5, -1.0]])); b = torch.nn.Parameter(torch.tensor([0.25]))
    /// o = torch.optim.AdamW([{'params': [w], 'weight_decay': .2}, {'params': [b], 'weight_decay': 0.}],
    ///                       lr=1e-2, betas=(.9, .98), eps=1e-6)
    /// for s in range(3):
    ///     w.grad = torch.tensor([[0.1 * (s + 1), -0.3]]); b.grad = torch.tensor([0.05 - 0.04 * s]); o.step()
    /// print(w.tolist(), b.tolist())
    /// ```
    #[test]
    fn three_updates_equal_those_of_torch() {
        let mut optimizer = AdamW::new(OPTIONS, 3, 2, Device::Cpu);
        let mut params = [0.5, -1.0, 0.25];
        for step in 0..3_u8 {
            let grads = grads(step);
            let parts = [(0..1, &grads[..1]), (1..3, &grads[1..])];
            optimizer.update(&mut params, &parts, u64::from(step) + 1, 1e-2);
        }
        for (found, expected) in params.iter().zip(GOLDEN) {
            assert!((found - expected).abs() < 1e-6, "{params:?}");
        }
    }

    fn grads(step: u8) -> [f32; 3] {
        let at = f32::from(step);
        [0.1 * (at + 1.0), -0.3, 0.05 - 0.04 * at]
    }

    const GOLDEN: [f32; 3] = [0.467_913_42, -0.964_072_05, 0.229_817_87];

    #[test]
    fn updates_queued_on_a_device_are_the_same_and_are_skipped_where_infinity_was_found() {
        let mut optimizer = AdamW::new(OPTIONS, 3, 2, Device::Cpu);
        let params = Tensor::from_slice(&[0.5_f32, -1.0, 0.25]);
        let number = |value: f32| Tensor::from(value);
        for step in 0..3_u8 {
            let broken = Tensor::from_slice(&[f32::NAN; 3]);
            let due = number(f32::from(step) + 1.0);
            let rate = number(1e-2);
            optimizer.update_on_device(&params, &broken, &due, &rate, &number(1.0)).unwrap();
            let grads = Tensor::from_slice(&grads(step));
            optimizer.update_on_device(&params, &grads, &due, &rate, &number(0.0)).unwrap();
        }
        let params = Vec::<f32>::try_from(params).unwrap();
        for (found, expected) in params.iter().zip(GOLDEN) {
            assert!((found - expected).abs() < 1e-6, "{params:?}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let total = 3 * MIN_CHUNK;
        let grads: Vec<f32> = (0..total).map(|i| ((i % 977) as f32 - 488.0) * 1e-3).collect();
        let run = |threads| {
            threads::set_intra_op(threads);
            let mut params = grads.clone();
            let mut optimizer = AdamW::new(OPTIONS, total, 2 * MIN_CHUNK + 17, Device::Cpu);
            optimizer.update(&mut params, &[(0..total, &grads)], 1, 1e-3);
            params
        };
        assert!(run(1) == run(2));
    }
}
