//! What decides a step's bits beside its data: kept with each checkpoint, and told when it changes.
//!
//! Two gangs that agree in all of it make the same losses bit for bit; others agree to rounding.

use clade_model::{device, threads};
use serde::{Deserialize, Serialize};

use super::course::Course;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct How {
    pub(super) ranks: u32,
    pub(super) device: String,
    /// Of one tensor operation.
    pub(super) threads: usize,
    /// The widest vector instructions that libtorch may choose here, or was told to use.
    pub(super) instructions: String,
    /// By whom sums over ranks are made, and in which order.
    pub(super) sums: String,
    pub(super) micro_batch: usize,
}

impl How {
    /// As this rank's gang computes.
    pub(super) fn here(course: &Course) -> Self {
        let told = std::env::var("ATEN_CPU_CAPABILITY").ok();
        Self {
            ranks: course.ranks,
            device: device::label(course.placement.device),
            threads: threads::intra_op(),
            instructions: told.unwrap_or_else(|| widest().to_owned()),
            sums: course.sums.to_owned(),
            micro_batch: course.options.micro_batch.unwrap_or(0),
        }
    }

    /// What is other than it was, in words; nothing if all is as it was.
    pub(super) fn differences(&self, before: &Self) -> Vec<String> {
        let Self { ranks, device, threads, instructions, sums, micro_batch } = self;
        let pairs = [
            ("ranks", before.ranks.to_string(), ranks.to_string()),
            ("device", before.device.clone(), device.clone()),
            ("threads", before.threads.to_string(), threads.to_string()),
            ("instructions", before.instructions.clone(), instructions.clone()),
            ("sums", before.sums.clone(), sums.clone()),
            ("micro-batch", before.micro_batch.to_string(), micro_batch.to_string()),
        ];
        let changed = pairs.into_iter().filter(|(_, before, now)| before != now);
        changed.map(|(what, before, now)| format!("{what}: {before}, now {now}")).collect()
    }
}

#[cfg(target_arch = "x86_64")]
fn widest() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx512f") {
        "avx512"
    } else if std::arch::is_x86_feature_detected!("avx2") {
        "avx2"
    } else {
        "sse"
    }
}

#[cfg(not(target_arch = "x86_64"))]
const fn widest() -> &'static str {
    std::env::consts::ARCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_between_two_gangs_is_told() {
        let before = How {
            ranks: 4,
            device: "cpu".into(),
            threads: 1,
            instructions: "avx2".into(),
            sums: "ring, by rank".into(),
            micro_batch: 8,
        };
        assert_eq!(before.differences(&before), Vec::<String>::new());
        let now = How { ranks: 2, instructions: "avx512".into(), ..before.clone() };
        assert_eq!(now.differences(&before), ["ranks: 4, now 2", "instructions: avx2, now avx512"]);
    }
}
