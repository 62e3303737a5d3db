//! The devices behind an agent's slots: which there are, how a rank is pinned to one, and when one
//! must not be used any more.
//!
//! The agent itself computes on none of them and never calls libtorch: it asks the driver's
//! management library, NVML, where there is one. Without a GPU, or when told `--device cpu`, slots
//! are CPU slots and nothing is looked at. Which device a slot has never changes while the agent
//! lives.

mod fault_file;
mod gpus;
mod health;
mod nvml;
mod probe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clade_proto::v1;

use fault_file::FaultFile;
use gpus::Gpu;
use health::Both;
pub(super) use health::{HealthSource, drained, ill_at_start, poll};

/// How many ranks an agent holds at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotCount {
    /// One per GPU, or one CPU slot if there is none.
    Auto,
    Fixed(u32),
}

impl std::str::FromStr for SlotCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count) if count > 0 => Ok(Self::Fixed(count)),
            Ok(_) | Err(_) if text == "auto" => Ok(Self::Auto),
            Ok(_) | Err(_) => Err("write `auto` or a number of at least 1".to_owned()),
        }
    }
}

/// The devices of all slots.
#[derive(Debug)]
pub(super) struct Devices {
    /// By slot; empty if the slots are CPU slots. A GPU may serve several.
    gpus: Vec<Gpu>,
    slots: u32,
    /// What ranks are told where they are not pinned to a GPU.
    device: String,
    health: Option<Arc<dyn HealthSource>>,
}

/// What a rank is told about where to compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) device: String,
    /// The only GPU the rank sees.
    pub(super) visible: Option<String>,
}

impl Devices {
    /// Finds the devices for ranks that are told `--device DEVICE`.
    pub(super) async fn find(
        device: &str,
        count: SlotCount,
        program: &Path,
        faults: Option<PathBuf>,
    ) -> Self {
        let (gpus, nvml) = match look(device, program).await {
            Ok((gpus, nvml)) => (gpus, Some(nvml)),
            Err(why) => {
                tracing::info!(%why, "slots are CPU slots");
                (Vec::new(), None)
            }
        };
        let slots = match count {
            SlotCount::Fixed(count) => count,
            SlotCount::Auto => u32::try_from(gpus.len()).unwrap_or(u32::MAX).max(1),
        };
        let gpus = gpus::deal(&gpus, slots);
        for (slot, Gpu { uuid, name, pci, .. }) in gpus.iter().enumerate() {
            tracing::info!(slot, uuid, name, pci, "a slot has a GPU");
        }
        let nvml = nvml.map(|nvml| nvml.watch(&gpus));
        let file = faults.map(|path| Arc::new(FaultFile::new(path)) as Arc<dyn HealthSource>);
        let health = match (nvml, file) {
            (Some(nvml), Some(file)) => Some(Arc::new(Both(nvml, file)) as Arc<dyn HealthSource>),
            (one, other) => one.or(other),
        };
        Self { gpus, slots, device: device.to_owned(), health }
    }

    pub(super) const fn slots(&self) -> u32 {
        self.slots
    }

    /// Who knows whether devices are well; none if nobody looks.
    pub(super) fn health(&self) -> Option<Arc<dyn HealthSource>> {
        self.health.clone()
    }

    fn gpu(&self, slot: u32) -> Option<&Gpu> {
        self.gpus.get(usize::try_from(slot).ok()?)
    }

    pub(super) fn pin(&self, slot: u32) -> Pin {
        match self.gpu(slot) {
            Some(gpu) => Pin { device: "cuda:0".to_owned(), visible: Some(gpu.uuid.clone()) },
            None => Pin { device: self.device.clone(), visible: None },
        }
    }

    /// Every slot's device as the coordinator is told it.
    pub(super) fn describe(&self, withdrawn: &BTreeMap<u32, String>) -> Vec<v1::Device> {
        let linked = gpus::linked(&self.gpus);
        let describe = |slot: u32| {
            let withdrawn = withdrawn.get(&slot).cloned().unwrap_or_default();
            let Some(gpu) = self.gpu(slot) else {
                let kind = "cpu".to_owned();
                return v1::Device { slot, kind, withdrawn, ..v1::Device::default() };
            };
            let Gpu { uuid, name, memory_mib, driver, pci, remotes: _ } = gpu.clone();
            let linked_slots = linked.get(&slot).cloned().unwrap_or_default();
            v1::Device { slot, kind: name, uuid, memory_mib, withdrawn, driver, pci, linked_slots }
        };
        (0..self.slots).map(describe).collect()
    }
}

/// The GPUs that ranks may use, or why there are none.
async fn look(device: &str, program: &Path) -> Result<(Vec<Gpu>, nvml::Management), String> {
    if device == "cpu" {
        return Err("--device cpu".to_owned());
    }
    let nvml = tokio::task::spawn_blocking(nvml::Management::open).await;
    let nvml = nvml.map_err(|error| format!("looking for GPUs failed: {error}"))??;
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let mut gpus = gpus::visible(nvml.gpus()?, visible.as_deref());
    if gpus.is_empty() {
        return Err("NVML shows no GPU, or CUDA_VISIBLE_DEVICES hides it".to_owned());
    }
    match device.strip_prefix("cuda:").map(str::parse::<usize>) {
        Some(Ok(index)) if index < gpus.len() => gpus = vec![gpus.swap_remove(index)],
        Some(Ok(_)) => return Err(format!("there is no {device} among {} GPUs", gpus.len())),
        // `auto`: whether ranks can use a GPU depends on their libtorch too.
        Some(Err(_)) | None => probe::can_use_gpus(program).await?,
    }
    Ok((gpus, nvml))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(gpus: Vec<Gpu>, slots: u32, device: &str) -> Devices {
        Devices { gpus, slots, device: device.to_owned(), health: None }
    }

    #[test]
    fn cpu_slots_are_told_what_the_agent_was_told() {
        let devices = devices(vec![], 2, "auto");
        assert_eq!(devices.pin(1), Pin { device: "auto".to_owned(), visible: None });
        let withdrawn = [(1, "broken".to_owned())].into();
        let said = devices.describe(&withdrawn);
        let kinds: Vec<_> = said.iter().map(|it| (it.slot, &*it.kind, &*it.withdrawn)).collect();
        assert_eq!(kinds, [(0, "cpu", ""), (1, "cpu", "broken")]);
    }

    #[test]
    fn a_rank_sees_the_gpu_of_its_slot_only() {
        let gpus = gpus::sample(2);
        let devices = devices(gpus::deal(&gpus, 2), 2, "auto");
        let pin = devices.pin(1);
        assert_eq!(pin.device, "cuda:0");
        assert_eq!(pin.visible.as_deref(), Some("GPU-1"));
        let said = devices.describe(&BTreeMap::new());
        assert_eq!(said[1].uuid, "GPU-1");
        assert_eq!(said[1].linked_slots, [0]);
        assert_eq!(said[1].memory_mib, 81_559);
    }

    #[test]
    fn slots_are_counted_or_found() {
        assert_eq!("auto".parse(), Ok(SlotCount::Auto));
        assert_eq!("3".parse(), Ok(SlotCount::Fixed(3)));
        for bad in ["0", "", "all", "-1"] {
            assert!(bad.parse::<SlotCount>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn without_a_gpu_auto_is_one_cpu_slot() {
        let devices = Devices::find("cpu", SlotCount::Auto, Path::new("/none"), None).await;
        assert_eq!(devices.slots(), 1);
        assert!(devices.health().is_none());
        assert_eq!(devices.pin(0).device, "cpu");
    }
}
