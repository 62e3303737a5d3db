//! Who says that a device is ill, and how that is asked without ever making the agent wait.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Between two looks at the devices.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// A driver that is silent for longer is talked about.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Knows whether devices are well. Its calls may block.
pub(in crate::agent) trait HealthSource: Debug + Send + Sync {
    /// Why devices must not be used, by slot; those that are well are absent.
    fn faults(&self) -> BTreeMap<u32, String>;

    /// Whether the slot's device still has memory of a process.
    fn holds(&self, slot: u32, pid: u32) -> bool;
}

/// Two sources: what either of them says counts.
#[derive(Debug)]
pub(super) struct Both(pub(super) Arc<dyn HealthSource>, pub(super) Arc<dyn HealthSource>);

impl HealthSource for Both {
    fn faults(&self) -> BTreeMap<u32, String> {
        let mut faults = self.1.faults();
        faults.extend(self.0.faults());
        faults
    }

    fn holds(&self, slot: u32, pid: u32) -> bool {
        self.0.holds(slot, pid) || self.1.holds(slot, pid)
    }
}

/// What is wrong before anything has begun: the first hello says so.
pub(in crate::agent) async fn ill_at_start(
    source: Option<Arc<dyn HealthSource>>,
) -> BTreeMap<u32, String> {
    let Some(source) = source else { return BTreeMap::new() };
    let looking = tokio::task::spawn_blocking(move || source.faults());
    let faults = match timeout(LOOK_PATIENCE, looking).await {
        Ok(Ok(faults)) => faults,
        Ok(Err(error)) => {
            tracing::error!(%error, "looking at the devices failed");
            BTreeMap::new()
        }
        // Said again, and louder, by those who go on looking.
        Err(_) => BTreeMap::new(),
    };
    for (slot, reason) in &faults {
        tracing::error!(slot, reason, "a device is withdrawn from the start");
    }
    faults
}

/// Looks at the devices until `end`, and tells their faults whenever they have changed.
pub(in crate::agent) async fn poll(
    source: Arc<dyn HealthSource>,
    found: mpsc::Sender<BTreeMap<u32, String>>,
    end: CancellationToken,
) {
    let mut told = BTreeMap::new();
    loop {
        let asked = Arc::clone(&source);
        let mut looking = tokio::task::spawn_blocking(move || asked.faults());
        let looked = tokio::select! {
            () = end.cancelled() => return,
            looked = timeout(LOOK_PATIENCE, &mut looking) => looked,
        };
        let looked = match looked {
            Ok(looked) => looked,
            Err(_) => {
                tracing::error!("the GPU driver gives no answer: see whether `nvidia-smi` does");
                tokio::select! {
                    () = end.cancelled() => return,
                    looked = looking => looked,
                }
            }
        };
        match looked {
            Ok(faults) if faults != told => {
                told.clone_from(&faults);
                if found.send(faults).await.is_err() {
                    return;
                }
            }
            Ok(_) => (),
            Err(error) => tracing::error!(%error, "looking at the devices failed"),
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = sleep(POLL_EVERY) => (),
        }
    }
}

/// Waits until a slot's device has let go of a dead process's memory, at most for `patience`.
pub(in crate::agent) async fn drained(
    source: &Arc<dyn HealthSource>,
    slot: u32,
    pid: u32,
    patience: Duration,
) -> Result<(), String> {
    let until = Instant::now() + patience;
    let still = || {
        format!(
            "memory of the ended rank with process id {pid} is still taken after {patience:?}: \
             reset the GPU or restart the machine, then the agent"
        )
    };
    loop {
        let asked = Arc::clone(source);
        let asking = tokio::task::spawn_blocking(move || asked.holds(slot, pid));
        match tokio::time::timeout_at(until, asking).await {
            Ok(Ok(true)) if Instant::now() < until => sleep(LOOK_AGAIN.min(patience)).await,
            Ok(Ok(true)) | Err(_) => return Err(still()),
            Ok(Ok(false)) => return Ok(()),
            Ok(Err(error)) => return Err(format!("its memory cannot be looked at: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Lets go after so many looks; ill from the look after `well`.
    #[derive(Debug)]
    struct Scripted {
        looks: AtomicU32,
        until: u32,
    }

    impl HealthSource for Scripted {
        fn faults(&self) -> BTreeMap<u32, String> {
            let looks = self.looks.fetch_add(1, Ordering::Relaxed);
            if looks < self.until { BTreeMap::new() } else { [(3, "ill".to_owned())].into() }
        }

        fn holds(&self, _slot: u32, _pid: u32) -> bool {
            self.looks.fetch_add(1, Ordering::Relaxed) < self.until
        }
    }

    fn scripted(until: u32) -> Arc<dyn HealthSource> {
        Arc::new(Scripted { looks: AtomicU32::new(0), until })
    }

    #[tokio::test]
    async fn a_slot_waits_for_its_memory_but_not_for_ever() {
        let soon = drained(&scripted(3), 0, 17, Duration::from_secs(60)).await;
        assert_eq!(soon, Ok(()));
        let never = drained(&scripted(u32::MAX), 0, 17, Duration::from_millis(20)).await;
        assert!(never.unwrap_err().contains("process id 17"));
    }

    #[tokio::test]
    async fn a_fault_is_told_once() {
        let (found, mut faults) = mpsc::channel(8);
        let end = CancellationToken::new();
        let source = scripted(0);
        let looks = Arc::clone(&source);
        let polling = tokio::spawn(poll(source, found, end.clone()));
        assert_eq!(faults.recv().await, Some([(3, "ill".to_owned())].into()));
        // Whatever else it finds is the same.
        assert!(!looks.faults().is_empty());
        end.cancel();
        polling.await.unwrap();
        assert_eq!(faults.recv().await, None);
    }
}
