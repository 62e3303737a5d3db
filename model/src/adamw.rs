//! AdamW with decoupled weight decay, over flat buffers.
//!
//! One pass over memory per update: a small CLIP's token table is most of its parameters, and a
//! pass is what an update costs. Every element is computed by itself, so the result does not depend
//! on the number of threads. Decay touches a prefix of the buffers (see [`crate::flat`]).

use std::thread;

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

/// The optimizer's two moments.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    options: AdamWOptions,
    /// Elements before this index decay.
    decayed: usize,
    exp_avg: Vec<f32>,
    exp_avg_sq: Vec<f32>,
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
    pub fn new(options: AdamWOptions, total: usize, decayed: usize) -> Self {
        Self::with_state(options, decayed, vec![0.0; total], vec![0.0; total])
    }

    /// Goes on from saved moments.
    pub fn with_state(
        options: AdamWOptions,
        decayed: usize,
        exp_avg: Vec<f32>,
        exp_avg_sq: Vec<f32>,
    ) -> Self {
        assert_eq!(exp_avg.len(), exp_avg_sq.len(), "both moments cover all parameters");
        assert!(decayed <= exp_avg.len(), "what decays is part of the parameters");
        Self { options, decayed, exp_avg, exp_avg_sq }
    }

    pub fn exp_avg(&self) -> &[f32] {
        &self.exp_avg
    }

    pub fn exp_avg_sq(&self) -> &[f32] {
        &self.exp_avg_sq
    }

    /// Applies one update in place.
    ///
    /// `update` counts from 1 and sets the bias correction.
    pub fn update(&mut self, params: &mut [f32], grads: &[f32], update: u64, learning_rate: f64) {
        assert_eq!(params.len(), self.exp_avg.len(), "the optimizer was made for other parameters");
        assert_eq!(grads.len(), params.len(), "a gradient for every parameter");
        let (params, params_rest) = params.split_at_mut(self.decayed);
        let (grads, grads_rest) = grads.split_at(self.decayed);
        let (first, first_rest) = self.exp_avg.split_at_mut(self.decayed);
        let (second, second_rest) = self.exp_avg_sq.split_at_mut(self.decayed);
        let options = self.options;
        let decay = options.weight_decay;
        let factors = |decay| factors(options, update, learning_rate, decay);
        sweep(params, grads, first, second, factors(decay));
        sweep(params_rest, grads_rest, first_rest, second_rest, factors(0.0));
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
        let mut optimizer = AdamW::new(OPTIONS, 3, 2);
        let mut params = [0.5, -1.0, 0.25];
        for step in 0..3_u8 {
            let at = f32::from(step);
            let grads = [0.1 * (at + 1.0), -0.3, 0.05 - 0.04 * at];
            optimizer.update(&mut params, &grads, u64::from(step) + 1, 1e-2);
        }
        for (found, expected) in params.iter().zip(GOLDEN) {
            assert!((found - expected).abs() < 1e-6, "{params:?}");
        }
    }

    const GOLDEN: [f32; 3] = [0.467_913_42, -0.964_072_05, 0.229_817_87];

    #[test]
    fn threads_change_no_bit() {
        let total = 3 * MIN_CHUNK;
        let grads: Vec<f32> = (0..total).map(|i| ((i % 977) as f32 - 488.0) * 1e-3).collect();
        let run = |threads| {
            threads::set_intra_op(threads);
            let mut params = grads.clone();
            let mut optimizer = AdamW::new(OPTIONS, total, 2 * MIN_CHUNK + 17);
            optimizer.update(&mut params, &grads, 1, 1e-3);
            params
        };
        assert!(run(1) == run(2));
    }
}
