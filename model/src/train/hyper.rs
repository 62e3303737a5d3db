//! Learning rate and optimizer settings of one model.

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Falls as half a cosine to nought at the last step.
    #[default]
    Cosine,
    Constant,
}

/// How a model is trained. Steps count from the seed model, so an expert continues its schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainHyper {
    pub peak_lr: f64,
    pub warmup_steps: u64,
    pub schedule: Schedule,
    /// Where the cosine reaches nought: seed steps plus expert steps.
    pub total_steps: u64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Not applied to parameters of one dimension or none.
    pub weight_decay: f64,
}

impl Default for TrainHyper {
    fn default() -> Self {
        Self {
            peak_lr: 5e-4,
            warmup_steps: 2000,
            schedule: Schedule::Cosine,
            total_steps: 10_000,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-6,
            weight_decay: 0.2,
        }
    }
}

impl TrainHyper {
    /// The rate of the update that follows `steps_done` updates.
    ///
    /// Rises evenly over the warm-up, then stays, or falls as half a cosine to nought at
    /// `total_steps`, as OpenCLIP's `const_lr` and `cosine_lr`; the cosine is nought beyond.
    pub fn learning_rate(&self, steps_done: u64) -> f64 {
        if steps_done < self.warmup_steps {
            return self.peak_lr * (steps_done + 1) as f64 / self.warmup_steps as f64;
        }
        if self.schedule == Schedule::Constant {
            return self.peak_lr;
        }
        if steps_done >= self.total_steps {
            return 0.0;
        }
        let done = (steps_done - self.warmup_steps) as f64;
        let due = (self.total_steps - self.warmup_steps) as f64;
        0.5 * (1.0 + (std::f64::consts::PI * done / due).cos()) * self.peak_lr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_to_its_peak_and_falls_to_nought() {
        let hyper =
            TrainHyper { peak_lr: 1.0, warmup_steps: 4, total_steps: 12, ..TrainHyper::default() };
        let rates: Vec<f64> = [0, 3, 4, 8, 12, 99].map(|step| hyper.learning_rate(step)).to_vec();
        let expected = [0.25, 1.0, 1.0, 0.5, 0.0, 0.0];
        assert!(rates.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{rates:?}");
    }

    #[test]
    fn a_constant_rate_stays_at_its_peak() {
        let schedule = Schedule::Constant;
        let hyper = TrainHyper {
            peak_lr: 1.0,
            warmup_steps: 2,
            total_steps: 3,
            schedule,
            ..TrainHyper::default()
        };
        assert_eq!([0, 1, 2, 99].map(|step| hyper.learning_rate(step)), [0.5, 1.0, 1.0, 1.0]);
    }
}
