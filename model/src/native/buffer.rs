//! A tensor's memory seen as a slice.

use tch::{Device, Kind, Tensor};

/// The values of a contiguous f32 tensor on the CPU.
pub(crate) fn values(tensor: &Tensor) -> &[f32] {
    let length = check(tensor);
    // SAFETY: `check` has shown that the tensor owns `length` contiguous f32 in host memory; the
    // borrow of `tensor` keeps that memory alive. Tensors are not Sync, and no operation runs in
    // the background on the CPU, so nobody writes meanwhile.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), length) }
}

/// The values of a contiguous f32 tensor on the CPU, to be changed in place.
///
/// Views that share the memory (the named leaves of a flat buffer) see the change.
pub(crate) fn values_mut(tensor: &mut Tensor) -> &mut [f32] {
    let length = check(tensor);
    // SAFETY: as in `values`; views of the same memory live in the same thread (their owner is not
    // Sync) and are not read through Rust references while this borrow lasts.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), length) }
}

/// The bytes of a contiguous u8 tensor on the CPU, pinned or not.
pub(crate) fn bytes(tensor: &Tensor) -> &[u8] {
    let length = check_kind(tensor, Kind::Uint8);
    if length == 0 {
        // Its pointer is none.
        return &[];
    }
    // SAFETY: as in `values`, of bytes.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }
}

/// The bytes of a contiguous u8 tensor on the CPU, pinned or not, to be changed in place.
///
/// A copy to a device that was queued reads them when it gets there: whoever sends them writes no more.
pub(crate) fn bytes_mut(tensor: &mut Tensor) -> &mut [u8] {
    let length = check_kind(tensor, Kind::Uint8);
    if length == 0 {
        return &mut [];
    }
    // SAFETY: as in `values_mut`, of bytes.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), length) }
}

fn check(tensor: &Tensor) -> usize {
    check_kind(tensor, Kind::Float)
}

fn check_kind(tensor: &Tensor, kind: Kind) -> usize {
    assert_eq!(tensor.kind(), kind, "only tensors of {kind:?} can be seen as such slices");
    assert_eq!(tensor.device(), Device::Cpu, "only tensors in host memory can be seen as slices");
    assert!(tensor.is_contiguous(), "only contiguous tensors can be seen as slices");
    tensor.numel()
}
