//! Real coordinators on a real etcd, and what talks to them.

#![allow(dead_code, reason = "several test programs share this, and none uses all of it")]

pub(crate) mod coordinator;
pub(crate) mod etcd;
pub(crate) mod worker;

use std::path::Path;
use std::time::{Duration, Instant};

use clade_proto::v1;
use coordinator::Coordinator;

/// Longer than anything here may take on a busy machine; what must be fast is measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is there.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The one that leads; waits until one does.
pub(crate) async fn leader(coordinators: &[Coordinator]) -> usize {
    until("a coordinator leads", async || {
        for (at, coordinator) in coordinators.iter().enumerate() {
            if coordinator.leads().await {
                return Some(at);
            }
        }
        None
    })
    .await
}

/// A run document whose inputs are there and are never read, since no real worker runs here.
pub(crate) fn document(folder: &Path, name: &str, tars: usize) -> v1::ApplyRunRequest {
    for at in 0..tars {
        std::fs::write(folder.join(format!("{at:03}.tar")), b"never read").unwrap();
    }
    for file in ["encoder", "vocabulary"] {
        std::fs::write(folder.join(file), b"never read").unwrap();
    }
    let demo = include_str!("../../../deploy/demo/run.yaml");
    let document = demo
        .replace("name: clipart", &format!("name: {name}"))
        .replace("./clade-data", "./store")
        .replace("data/clipart/train/*.tar", "'*.tar'")
        .replace("data/clipart/eval/classes", "encoder")
        .replace("data/clipart/eval/retrieval", "encoder")
        .replace("assets/all-minilm-l6-v2", "encoder")
        .replace("assets/clip-bpe/bpe_simple_vocab_16e6.txt.gz", "vocabulary");
    v1::ApplyRunRequest { document, base_dir: folder.display().to_string(), queue: false }
}

/// What a counter of `clade_…` says of a reason; 0 if it has never counted it.
pub(crate) fn counted(port: u16, counter: &str, reason: &str) -> u64 {
    let label = format!("clade_{counter}_total{{reason=\"{reason}\"}} ");
    let text = etcd::get(port, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(&label));
    line.map_or(0, |count| count.trim().parse().unwrap())
}
