//! The GPUs as NVML shows them. The only file that calls it.
//!
//! NVML is loaded at run time, once per process; a machine without a driver has none. Its calls
//! block, and may block for long when a GPU is ill.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
};
use nvml_wrapper::{Device, EventSet, Nvml};

use super::HealthSource;
use super::gpus::Gpu;

/// As the driver installs it; the name without the number comes with development files only.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// XIDs that a program causes, not its GPU: bad addresses, exceptions, the clean-up after them.
const XIDS_OF_PROGRAMS: [u64; 6] = [13, 31, 43, 45, 68, 109];
/// The most links a GPU has.
const LINKS: u32 = 18;

/// The library, for as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Management(&'static Nvml);

impl Management {
    /// Loads the library, or says why there is none.
    pub(super) fn open() -> Result<Self, String> {
        static LOADED: OnceLock<Result<Nvml, String>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| {
            let nvml = Nvml::builder().lib_path(OsStr::new(LIBRARY)).init();
            nvml.map_err(|error| format!("no GPU can be looked at: {LIBRARY}: {error}"))
        });
        loaded.as_ref().map(Self).map_err(Clone::clone)
    }

    /// Every GPU of the machine, in PCI order.
    pub(super) fn gpus(self) -> Result<Vec<Gpu>, String> {
        let failed = |error: NvmlError| format!("NVML does not list the GPUs: {error}");
        let count = self.0.device_count().map_err(failed)?;
        let driver = self.0.sys_driver_version().map_err(failed)?;
        let mut gpus = Vec::new();
        for index in 0..count {
            // One that fell off the bus is not listed: nobody could say which it is.
            let found = self.0.device_by_index(index).and_then(|it| describe(&it, &driver));
            match found {
                Ok(gpu) => gpus.push(gpu),
                Err(error) => tracing::error!(index, %error, "a GPU cannot be looked at"),
            }
        }
        Ok(gpus)
    }

    /// Watches the GPUs of all slots.
    pub(super) fn watch(self, by_slot: &[Gpu]) -> Arc<dyn HealthSource> {
        let uuids: Vec<String> = by_slot.iter().map(|gpu| gpu.uuid.clone()).collect();
        let events = self.events(&uuids.iter().collect()).map_err(|error| {
            tracing::warn!(%error, "critical errors of the GPUs (XIDs) will not be heard of");
        });
        let xids = Mutex::new(Xids { events: events.ok(), seen: BTreeMap::new() });
        Arc::new(Watched { nvml: self.0, by_slot: uuids, xids })
    }

    fn events(self, uuids: &BTreeSet<&String>) -> Result<EventSet<'static>, String> {
        let mut events = self.0.create_event_set().map_err(|error| error.to_string())?;
        for uuid in uuids {
            let device = self.0.device_by_uuid(uuid.as_str()).map_err(|error| error.to_string())?;
            events = device
                .register_events(EventTypes::CRITICAL_XID_ERROR, events)
                .map_err(|error| error.to_string())?;
        }
        Ok(events)
    }
}

fn describe(device: &Device<'_>, driver: &str) -> Result<Gpu, NvmlError> {
    let remotes = (0..LINKS).filter_map(|link| {
        let link = device.link_wrapper_for(link);
        let is_active = link.is_active().unwrap_or(false);
        if is_active { link.remote_pci_info().ok().map(|info| info.bus_id) } else { None }
    });
    Ok(Gpu {
        uuid: device.uuid()?,
        name: device.name()?,
        memory_mib: device.memory_info()?.total >> 20,
        driver: driver.to_owned(),
        pci: device.pci_info()?.bus_id,
        remotes: remotes.collect(),
    })
}

/// The GPUs of an agent's slots.
#[derive(Debug)]
struct Watched {
    nvml: &'static Nvml,
    /// UUIDs.
    by_slot: Vec<String>,
    xids: Mutex<Xids>,
}

/// Critical errors so far, by UUID: each is told once only.
#[derive(Debug)]
struct Xids {
    events: Option<EventSet<'static>>,
    seen: BTreeMap<String, String>,
}

impl Xids {
    /// Takes in what has happened since the last look.
    fn look(&mut self) {
        let Some(events) = &self.events else { return };
        while let Ok(event) = events.wait(0) {
            let number = match event.event_data {
                Some(XidError::Value(number)) => number,
                Some(XidError::Unknown) | None => continue,
            };
            let Ok(uuid) = event.device.uuid() else { continue };
            if XIDS_OF_PROGRAMS.contains(&number) {
                tracing::warn!(uuid, number, "a program caused an error of its GPU");
            } else {
                let fault = format!("critical error XID {number}: see the kernel's log");
                self.seen.entry(uuid).or_insert(fault);
            }
        }
    }
}

impl HealthSource for Watched {
    fn faults(&self) -> BTreeMap<u32, String> {
        let mut xids = self.xids.lock().unwrap_or_else(PoisonError::into_inner);
        xids.look();
        let fault = |uuid: &String| {
            let found = || match self.nvml.device_by_uuid(uuid.as_str()) {
                Ok(device) => fault(&device),
                Err(error) => lost(&error),
            };
            xids.seen.get(uuid).cloned().or_else(found)
        };
        let slots = (0..).zip(&self.by_slot);
        slots.filter_map(|(slot, uuid)| Some((slot, fault(uuid)?))).collect()
    }

    fn holds(&self, slot: u32, pid: u32) -> bool {
        let Some(uuid) = self.by_slot.get(slot as usize) else { return false };
        let processes = self
            .nvml
            .device_by_uuid(uuid.as_str())
            .and_then(|device| device.running_compute_processes());
        // A GPU that does not answer is withdrawn for that; nothing is gained by waiting for it. The
        // process ids are those of the host: a container with its own waits for nothing here.
        processes.is_ok_and(|found| found.iter().any(|process| process.pid == pid))
    }
}

/// What is wrong with a GPU, if anything.
fn fault(device: &Device<'_>) -> Option<String> {
    match device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile) {
        Ok(0) => (),
        Ok(count) => {
            return Some(format!(
                "{count} uncorrected memory errors since the driver was loaded: reset the GPU"
            ));
        }
        Err(error) => {
            if let Some(lost) = lost(&error) {
                return Some(lost);
            }
        }
    }
    if device.are_pages_pending_retired().unwrap_or(false) {
        return Some("memory pages wait to be retired: restart the machine".to_owned());
    }
    let fields = [NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_FAILURE].map(FieldId);
    let values = device.field_values_for(&fields).unwrap_or_default();
    let is_set = |at: usize| match values.get(at) {
        Some(Ok(sample)) => sample.value.as_ref().is_ok_and(|value| !is_zero(value)),
        Some(Err(_)) | None => false,
    };
    if is_set(1) {
        return Some("a memory row could not be remapped: replace the GPU".to_owned());
    }
    is_set(0).then(|| "a memory row waits to be remapped: reset the GPU".to_owned())
}

fn is_zero(value: &SampleValue) -> bool {
    match value {
        SampleValue::F64(value) => *value == 0.0,
        SampleValue::U32(value) => *value == 0,
        SampleValue::U64(value) => *value == 0,
        SampleValue::I64(value) => *value == 0,
    }
}

/// Whether an answer means that the GPU is gone, and not only that it has no such figure.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "NVML counts dozens of errors, and adds to them"
)]
fn lost(error: &NvmlError) -> Option<String> {
    match error {
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::IrqIssue => {
            Some(format!("NVML: {error}"))
        }
        // It was there when the agent started.
        NvmlError::NotFound => Some("NVML: the GPU is not there any more".to_owned()),
        _ => None,
    }
}
