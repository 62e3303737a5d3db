//! What is known of GPUs, and which of them serve which slots. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// One GPU as NVML describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gpu {
    /// `GPU-…`
    pub(super) uuid: String,
    pub(super) name: String,
    pub(super) memory_mib: u64,
    /// Version of the driver.
    pub(super) driver: String,
    /// `00000000:3B:00.0`
    pub(super) pci: String,
    /// PCI addresses at the other ends of its active NVLinks: GPUs, or switches.
    pub(super) remotes: BTreeSet<String>,
}

/// Those of `gpus` that `CUDA_VISIBLE_DEVICES` names, in its order; all if it is not set.
///
/// As CUDA reads it: numbers or beginnings of UUIDs, up to the first that names nothing. Numbers
/// count in PCI order, which is CUDA's too where all GPUs of a machine are alike.
pub(super) fn visible(gpus: Vec<Gpu>, variable: Option<&str>) -> Vec<Gpu> {
    let Some(variable) = variable else { return gpus };
    let named = |name: &str| match name.parse::<usize>() {
        Ok(index) => gpus.get(index).cloned(),
        Err(_) if name.starts_with("GPU-") => {
            gpus.iter().find(|gpu| gpu.uuid.starts_with(name)).cloned()
        }
        Err(_) => None,
    };
    variable.split(',').map(str::trim).map_while(named).collect()
}

/// Gives every slot a GPU of its own while there are enough, and shares them otherwise.
pub(super) fn deal(gpus: &[Gpu], slots: u32) -> Vec<Gpu> {
    (0..slots as usize).filter_map(|slot| gpus.get(slot % gpus.len().max(1)).cloned()).collect()
}

/// For each slot, the others whose GPU is reached over NVLink: directly, or through one switch.
pub(super) fn linked(by_slot: &[Gpu]) -> BTreeMap<u32, Vec<u32>> {
    let are_linked = |one: &Gpu, other: &Gpu| {
        one.pci != other.pci
            && (one.remotes.contains(&other.pci)
                || other.remotes.contains(&one.pci)
                || !one.remotes.is_disjoint(&other.remotes))
    };
    let slots = || (0_u32..).zip(by_slot);
    let others = |gpu: &Gpu| {
        slots().filter(|(_, other)| are_linked(gpu, other)).map(|(slot, _)| slot).collect()
    };
    slots().map(|(slot, gpu)| (slot, others(gpu))).collect()
}

/// GPUs that hang on one switch.
#[cfg(test)]
pub(super) fn sample(count: usize) -> Vec<Gpu> {
    let sample = |index: usize| Gpu {
        uuid: format!("GPU-{index}"),
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_mib: 81_559,
        driver: "570.1".to_owned(),
        pci: format!("00000000:0{index}:00.0"),
        remotes: ["00000000:F0:00.0".to_owned()].into(),
    };
    (0..count).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuids(gpus: &[Gpu]) -> Vec<&str> {
        gpus.iter().map(|gpu| gpu.uuid.as_str()).collect()
    }

    #[test]
    fn the_variable_chooses_as_cuda_does() {
        for (variable, expected) in [
            (None, vec!["GPU-0", "GPU-1", "GPU-2"]),
            (Some("2, 0"), vec!["GPU-2", "GPU-0"]),
            (Some("GPU-1"), vec!["GPU-1"]),
            (Some("1,9,0"), vec!["GPU-1"]),
            (Some(""), vec![]),
            (Some("-1"), vec![]),
            (Some("MIG-1"), vec![]),
        ] {
            assert_eq!(uuids(&visible(sample(3), variable)), expected, "{variable:?}");
        }
    }

    #[test]
    fn slots_share_gpus_only_if_there_are_too_few() {
        assert_eq!(uuids(&deal(&sample(3), 2)), ["GPU-0", "GPU-1"]);
        assert_eq!(uuids(&deal(&sample(2), 3)), ["GPU-0", "GPU-1", "GPU-0"]);
        assert!(deal(&[], 3).is_empty());
    }

    #[test]
    fn links_are_direct_or_through_a_common_switch() {
        assert_eq!(linked(&sample(3)), [(0, vec![1, 2]), (1, vec![0, 2]), (2, vec![0, 1])].into());
        // A bridge between the first two; the third is on PCI alone.
        let mut gpus = sample(3);
        for gpu in &mut gpus {
            gpu.remotes.clear();
        }
        let second = gpus[1].pci.clone();
        gpus[0].remotes.insert(second);
        assert_eq!(linked(&gpus), [(0, vec![1]), (1, vec![0]), (2, vec![])].into());
        // Two slots of one GPU are not linked: they are the same.
        assert_eq!(linked(&deal(&sample(1), 2)), [(0, vec![]), (1, vec![])].into());
    }
}
