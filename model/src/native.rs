//! A tensor's memory as a slice, the C++ file beside this crate, and loading libraries while the
//! program runs. Unsafe code stands here alone.
//!
//! Everything here is a safe function with a plain meaning; nothing here decides anything.
#![allow(unsafe_code)]

mod buffer;
mod libraries;
mod nccl;
mod process;
mod stacks;
mod torch;

pub(crate) use buffer::{bytes, bytes_mut, values, values_mut};
pub(crate) use libraries::{cuda_device_name, load_globally, loaded_path};
pub(crate) use nccl::{Communicator, ID_BYTES, Nccl, Progress};
pub(crate) use process::{address_space_limit, exit_now, keep_freed_memory, thread_id};
pub(crate) use stacks::addresses;
pub(crate) use torch::{
    Event, FusedAdamW, NativeError, Stream, device_memory, fused_adamw, grad, pinned_bytes,
    reset_peak, upload_bytes, upload_wide,
};
