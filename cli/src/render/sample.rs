//! A hand-made answer of a coordinator in the middle of a run, for tests.

use std::collections::HashMap;

use clade_proto::v1::{
    Device, GetStatusResponse, PartStatus, RankStatus, RunStatus, WorkerInfo, WorkerStatus,
};

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
        ..GetStatusResponse::default()
    }
}

/// Four workers: well, cordoned with a broken GPU, draining, and in quarantine.
pub(crate) fn fleet() -> Vec<WorkerInfo> {
    let device = |slot: u32| Device {
        slot,
        kind: "NVIDIA H100 80GB HBM3".to_owned(),
        uuid: format!("GPU-{slot}"),
        memory_mib: 81_559,
        driver: "570.86".to_owned(),
        pci: format!("00000000:0{slot}:00.0"),
        linked_slots: vec![1 - slot],
        ..Device::default()
    };
    let worker = |node: &str, busy| WorkerInfo {
        worker: format!("{node}-0a1b"),
        node: node.to_owned(),
        host: node.to_owned(),
        pid: 4_100,
        domain: "rack-7".to_owned(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        phase: "attached".to_owned(),
        slots: 2,
        busy,
        devices: vec![device(0), device(1)],
        ..WorkerInfo::default()
    };
    let cpu = Device { kind: "cpu".to_owned(), ..Device::default() };
    let withdrawn = "critical error XID 79: see the kernel's log".to_owned();
    vec![
        WorkerInfo { straggler: true, ..worker("gpu-0", 2) },
        WorkerInfo {
            cordoned: true,
            why: "fan is loud".to_owned(),
            devices: vec![device(0), Device { withdrawn, ..device(1) }],
            ..worker("gpu-1", 1)
        },
        WorkerInfo {
            cordoned: true,
            draining: true,
            why: "new memory".to_owned(),
            ..worker("gpu-2", 1)
        },
        WorkerInfo {
            quarantined_until_ms: NOW_MS + 250_000,
            why: "3 gangs failed here".to_owned(),
            slots: 1,
            devices: vec![cpu],
            ..worker("cpu-0", 0)
        },
    ]
}
