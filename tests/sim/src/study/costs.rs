//! What a failure costs, piece by piece: given on the command line, printed with every figure.

use clap::Args;

/// Times in milliseconds of what the study cannot measure itself.
///
/// Notices are the product's own limits (`docs/performance.md`); those of start, save and upload are
/// stated for a model of 430 million parameters (5 GB with its optimizer), and were not measured.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// From a rank's death to its agent's report
    #[arg(long, default_value_t = 1_000)]
    pub exit_ms: u64,
    /// Silence after which a stream is taken for closed; the core waits `Limits::reattach` more
    #[arg(long, default_value_t = 5_000)]
    pub silence_ms: u64,
    /// From the order to die to the agent's word that rank and device memory are gone
    #[arg(long, default_value_t = 2_000)]
    pub stop_ms: u64,
    /// Listing what a gang left in the store
    #[arg(long, default_value_t = 500)]
    pub inspect_ms: u64,
    /// From the order to start to the first step: process, libraries, NCCL, checkpoint read
    #[arg(long, default_value_t = 30_000)]
    pub start_ms: u64,
    /// Steps stand still while a checkpoint is written to the local disk
    #[arg(long, default_value_t = 3_000)]
    pub save_ms: u64,
    /// Afterwards, while training goes on, until it is committed
    #[arg(long, default_value_t = 10_000)]
    pub upload_ms: u64,
    /// A node that was lost is back with a new agent
    #[arg(long, default_value_t = 300_000)]
    pub repair_ms: u64,
    /// What a job of the stages takes
    #[arg(long, default_value_t = 60_000)]
    pub job_ms: u64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            exit_ms: 1_000,
            silence_ms: 5_000,
            stop_ms: 2_000,
            inspect_ms: 500,
            start_ms: 30_000,
            save_ms: 3_000,
            upload_ms: 10_000,
            repair_ms: 300_000,
            job_ms: 60_000,
        }
    }
}

impl Costs {
    /// How long a gang is seated at least for so many milliseconds of steps: its start, them, its last
    /// checkpoint, and one between whenever it has stepped for `interval_ms`. Making way costs more than that.
    pub(crate) const fn least_ms(&self, steps_ms: u64, step_ms: u64, interval_ms: u64) -> u64 {
        let longest = interval_ms.div_ceil(step_ms) * step_ms;
        let between = steps_ms.div_ceil(longest).saturating_sub(1);
        self.start_ms + steps_ms + between * self.save_ms + self.save_ms + self.upload_ms
    }

    /// Young's interval between checkpoints: short enough that little is done twice, long enough that
    /// saving costs as little. `every_ms` is the mean time between two failures of one gang.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "times of days in milliseconds"
    )]
    pub(crate) fn young_ms(&self, every_ms: f64) -> u64 {
        let interval = (2.0 * self.save_ms as f64 * every_ms).sqrt() as u64;
        interval.max(self.save_ms + self.upload_ms)
    }
}
