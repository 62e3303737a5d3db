//! Where a model computes, and with which numbers.
//!
//! One program serves machines with and without a GPU: it links libtorch's CPU half only, and
//! [`DeviceChoice::prepare`] loads the CUDA half where there is one. libtorch looks for that half
//! once, the first time anybody asks about CUDA, so call it before anything else of this crate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use tch::{Cuda, Device, Kind};

use crate::native;

/// Names the file of libtorch's CUDA half, where it does not lie beside the CPU half.
pub const CUDA_LIBRARY_VARIABLE: &str = "CLADE_LIBTORCH_CUDA";
const CPU_LIBRARY: &str = "libtorch_cpu.so";
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// What a user asks for: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is one that works, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Malformed { found: other.to_owned() }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("device {found:?} is none of auto, cpu, cuda, cuda:<number>")]
    Malformed { found: String },
    #[error(
        "no {CUDA_LIBRARY} in {}: this libtorch computes on the CPU only; put the `lib` folder of a \
         torch 2.11 with CUDA on LD_LIBRARY_PATH, or name the file in {CUDA_LIBRARY_VARIABLE}",
        folder.display()
    )]
    NoLibrary { folder: PathBuf },
    #[error(
        "cannot load {}: {why}; it must be of torch 2.11, with its CUDA libraries beside it",
        path.display()
    )]
    Unloadable { path: PathBuf, why: String },
    #[error(
        "{} is loaded, but its driver shows no GPU: see whether `nvidia-smi` does, and whether \
         CUDA_VISIBLE_DEVICES hides it",
        path.display()
    )]
    NoDevice { path: PathBuf },
    #[error("there is no cuda:{index}: this machine shows {count} GPUs, counted from 0")]
    OutOfRange { index: usize, count: usize },
    #[error("the GPU's memory cannot be read: {0}")]
    Memory(String),
}

/// The numbers that towers compute with. Master weights and optimizer are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    /// Matrix products, activations and their gradients; the loss stays f32.
    Bf16,
}

impl Precision {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }

    /// Bytes of one number.
    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("precision {other:?} is none of f32, bf16")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// Where a model lies and what it computes with. The default is f32 on the CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    pub device: Device,
    pub precision: Precision,
}

impl Default for Placement {
    fn default() -> Self {
        Self { device: Device::Cpu, precision: Precision::F32 }
    }
}

/// A device that can be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// `cpu` or `cuda:N`.
    pub device: String,
    pub name: Option<String>,
    /// Bytes, of which `free` are not taken by any process.
    pub memory: Option<u64>,
    pub free: Option<u64>,
}

impl DeviceChoice {
    /// Loads what the choice needs, once per process, and returns the device.
    ///
    /// # Errors
    ///
    /// A GPU that was asked for by name and cannot be had. `auto` falls back to the CPU; the reason
    /// is [`why_no_gpu`].
    pub fn prepare(self) -> Result<Device, DeviceError> {
        self.prepare_for(0)
    }

    /// As [`Self::prepare`], for one of several processes on this machine: `auto` gives neighbouring
    /// slots different GPUs.
    pub fn prepare_for(self, slot: usize) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(gpus().map_or(Device::Cpu, |count| Device::Cuda(slot % count))),
            Self::Cuda(index) => {
                let count = gpus()?;
                if index < count {
                    Ok(Device::Cuda(index))
                } else {
                    Err(DeviceError::OutOfRange { index, count })
                }
            }
        }
    }
}

/// Why this process has no GPU, if it has none.
pub fn why_no_gpu() -> Option<DeviceError> {
    gpus().err()
}

/// How many GPUs work; loads the CUDA half the first time.
fn gpus() -> Result<usize, DeviceError> {
    static FOUND: OnceLock<Result<usize, DeviceError>> = OnceLock::new();
    FOUND.get_or_init(find_gpus).clone()
}

fn find_gpus() -> Result<usize, DeviceError> {
    let path = match std::env::var_os(CUDA_LIBRARY_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => beside_cpu_half()?,
    };
    let unloadable = |why| DeviceError::Unloadable { path: path.clone(), why };
    native::load_globally(&path).map_err(unloadable)?;
    match usize::try_from(Cuda::device_count()) {
        Ok(count) if count > 0 && Cuda::is_available() => Ok(count),
        Ok(_) | Err(_) => Err(DeviceError::NoDevice { path }),
    }
}

fn beside_cpu_half() -> Result<PathBuf, DeviceError> {
    let cpu = native::loaded_path(CPU_LIBRARY);
    let folder = cpu.as_deref().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned();
    let path = folder.join(CUDA_LIBRARY);
    if path.exists() { Ok(path) } else { Err(DeviceError::NoLibrary { folder }) }
}

/// The CPU, then every GPU that works.
pub fn list() -> Vec<DeviceInfo> {
    let memory = host_memory();
    let cpu = DeviceInfo { device: "cpu".to_owned(), name: None, memory, free: None };
    let gpu = |index: usize| {
        let memory = native::device_memory(index).ok();
        DeviceInfo {
            device: format!("cuda:{index}"),
            name: native::cuda_device_name(index),
            memory: memory.map(|it| it.total),
            free: memory.map(|it| it.free),
        }
    };
    std::iter::once(cpu).chain((0..gpus().unwrap_or(0)).map(gpu)).collect()
}

/// A device as users write it.
pub fn label(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

/// Returns once everything queued on the device is done.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(i64::try_from(index).unwrap_or(i64::MAX));
    }
}

/// The most bytes in use so far: on a GPU by tensors, on the CPU by the whole process.
pub fn peak_bytes(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => native::device_memory(index).ok().map(|it| it.peak),
        Device::Cpu | Device::Mps | Device::Vulkan => host_peak(),
    }
}

/// The most bytes of memory this process has held, `VmHWM`.
pub fn host_peak() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// Lets [`peak_bytes`] of a GPU count from now.
pub fn reset_peak(device: Device) {
    if let Device::Cuda(index) = device {
        // Without a figure to reset there is none to read either.
        let _ = native::reset_peak(index);
    }
}

/// Bytes this process may fill on the device: of a GPU what others leave it, of the CPU what limits
/// allow.
pub(crate) fn capacity(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => native::device_memory(index).ok().map(|it| it.free + it.allocated),
        Device::Cpu | Device::Mps | Device::Vulkan => host_memory(),
    }
}

fn host_memory() -> Option<u64> {
    let installed = proc_bytes("/proc/meminfo", "MemTotal:");
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = group.iter().filter_map(|path| {
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok())
    });
    let address_space = native::address_space_limit();
    installed.into_iter().chain(group).chain(address_space).min()
}

fn status_bytes(key: &str) -> Option<u64> {
    proc_bytes("/proc/self/status", key)
}

/// A line such as `VmHWM:   1234 kB`, in bytes.
fn proc_bytes(path: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Settings of the process that make training faster; call it first thing in `main`.
pub fn tune_process() {
    native::keep_freed_memory();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        let said = "gpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(said.contains("\"gpu\" is none of auto, cpu"), "{said}");
        assert!("cuda:-1".parse::<DeviceChoice>().is_err());
    }

    #[test]
    fn without_a_gpu_auto_is_the_cpu_and_a_gpu_is_refused_with_a_reason() {
        if why_no_gpu().is_none() {
            assert_eq!(DeviceChoice::Auto.prepare(), Ok(Device::Cuda(0)));
            let beyond = DeviceChoice::Cuda(4096).prepare().unwrap_err();
            assert!(matches!(beyond, DeviceError::OutOfRange { .. }), "{beyond}");
            return;
        }
        assert_eq!(DeviceChoice::Auto.prepare(), Ok(Device::Cpu));
        let said = DeviceChoice::Cuda(0).prepare().unwrap_err().to_string();
        assert!(said.contains("libtorch_cuda.so"), "{said}");
    }

    #[test]
    fn the_cpu_is_always_listed_with_its_memory() {
        let cpu = list().remove(0);
        assert_eq!(cpu.device, "cpu");
        assert!(cpu.memory.is_some_and(|bytes| bytes > 1 << 28));
        assert!(peak_bytes(Device::Cpu).is_some_and(|bytes| bytes > 1 << 20));
    }
}
