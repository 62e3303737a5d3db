//! A hand-made answer of a coordinator in the middle of a run, for tests.

use std::collections::HashMap;

use clade_proto::v1::{GetStatusResponse, PartStatus, RankStatus, RunStatus, WorkerStatus};

pub(crate) const NOW_MS: u64 = 1_800_000_192_000;

fn part(name: &str, phase: &str, done: u64, total: u64, unit: &str) -> PartStatus {
    PartStatus {
        name: name.to_owned(),
        phase: phase.to_owned(),
        done,
        total,
        unit: unit.to_owned(),
        eta_seconds: -1.0,
        ..PartStatus::default()
    }
}

fn seat(worker: &str, rank: u32, pid: u32) -> RankStatus {
    RankStatus { worker: worker.to_owned(), slot: 0, rank, pid, work: String::new() }
}

pub(crate) fn status() -> GetStatusResponse {
    let counts =
        HashMap::from([("pairs", 21_793), ("unusable.truncatedImage", 3), ("pairs.expert-0", 9)]);
    let counts = counts.into_iter().map(|(key, count)| (key.to_owned(), count)).collect();
    let parts = vec![
        PartStatus { counts, ..part("index", "done", 12, 12, "jobs") },
        PartStatus {
            rate: 0.42,
            eta_seconds: 9.5,
            reason: "on w1:0; restarted after: worker w9 was lost".to_owned(),
            ranks: vec![
                RankStatus { work: "embed.3".to_owned(), ..seat("w1", 0, 4_243) },
                RankStatus { work: "embed.4".to_owned(), ..seat("w2", 0, 4_244) },
            ],
            ..part("embed", "running", 8, 12, "jobs")
        },
        PartStatus {
            reason: "waits for embed".to_owned(),
            ..part("cluster", "waiting", 0, 1, "jobs")
        },
        PartStatus {
            rate: 3.21,
            eta_seconds: 44.6,
            loss: 3.214_159,
            incarnation: 2,
            committed_step: 120,
            restarts: 1,
            ranks: vec![seat("w0", 0, 4_242)],
            ..part("seed", "running", 144, 288, "steps")
        },
        PartStatus {
            reason: "rank 0 crashed: killed by signal 9; starts again in 4 s".to_owned(),
            loss: 2.9,
            incarnation: 5,
            committed_step: 300,
            restarts: 4,
            ..part("dense", "backoff", 310, 432, "steps")
        },
        PartStatus {
            reason: "waits for seed and seal, and then for one free slot that no other gang holds \
                     on any worker"
                .to_owned(),
            ..part("expert-0", "waiting", 0, 432, "steps")
        },
    ];
    let worker = |name: &str, phase: &str, pid, busy| WorkerStatus {
        worker: name.to_owned(),
        host: "laptop".to_owned(),
        pid,
        phase: phase.to_owned(),
        slots: 1,
        busy,
    };
    GetStatusResponse {
        term: 3,
        runs: vec![RunStatus {
            run: "clipart".to_owned(),
            phase: "active".to_owned(),
            parts,
            created_ms: NOW_MS - 192_000,
            eta_seconds: 250.0,
            ..RunStatus::default()
        }],
        workers: vec![
            worker("w0-k3f9", "attached", 4_100, 1),
            worker("w1-x81a", "detached", 4_101, 1),
        ],
    }
}
