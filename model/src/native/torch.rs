//! Safe names for the functions of `native/torch.cpp`.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::Tensor;
use torch_sys::C_tensor;

/// A C++ `c10::Event`.
#[repr(C)]
struct CEvent {
    _opaque: [u8; 0],
}

/// A C++ `c10::Stream`.
#[repr(C)]
struct CStream {
    _opaque: [u8; 0],
}

// SAFETY: these are the signatures of `native/torch.cpp`, which is compiled with this crate.
unsafe extern "C" {
    fn clade_free(text: *mut c_char);
    fn clade_grad(
        outputs: *const *const C_tensor,
        by_outputs: *const *const C_tensor,
        output_count: usize,
        inputs: *const *const C_tensor,
        input_count: usize,
        found: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn clade_upload(
        data: *const c_void,
        bytes: usize,
        count: i64,
        is_wide: bool,
        index: c_int,
        made: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn clade_pinned(count: i64, made: *mut *mut C_tensor) -> *mut c_char;
    fn clade_fused_adamw(
        param: *const C_tensor,
        gradient: *const C_tensor,
        first: *const C_tensor,
        second: *const C_tensor,
        step: *const C_tensor,
        rate: *const C_tensor,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        found_infinity: *const C_tensor,
    ) -> *mut c_char;
    fn clade_device_memory(
        index: c_int,
        allocated: *mut i64,
        peak: *mut i64,
        unused: *mut i64,
        total: *mut i64,
    ) -> *mut c_char;
    fn clade_reset_peak(index: c_int) -> *mut c_char;
    fn clade_event_record(index: c_int, event: *mut *mut CEvent) -> *mut c_char;
    fn clade_event_wait(event: *mut CEvent) -> *mut c_char;
    fn clade_event_passed(event: *mut CEvent, passed: *mut bool) -> *mut c_char;
    fn clade_event_free(event: *mut CEvent);
    fn clade_stream_new(
        index: c_int,
        made: *mut *mut CStream,
        handle: *mut *mut c_void,
    ) -> *mut c_char;
    fn clade_stream_join(
        stream: *mut CStream,
        is_current_to_wait: bool,
        event: *mut *mut CEvent,
    ) -> *mut c_char;
    fn clade_stream_free(stream: *mut CStream);
}

/// What libtorch said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NativeError(String);

fn check(text: *mut c_char) -> Result<(), NativeError> {
    if text.is_null() {
        return Ok(());
    }
    // SAFETY: the C++ side returns null or a string made by strdup, which nobody else holds.
    let message = unsafe {
        let message = CStr::from_ptr(text).to_string_lossy().into_owned();
        clade_free(text);
        message
    };
    Err(NativeError(message))
}

fn pointers(tensors: &[&Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr()).collect()
}

/// Gradients of `outputs` by `inputs`, given the gradient of a number by each output.
///
/// The graph is freed. None where no output depends on an input.
pub(crate) fn grad(
    outputs: &[&Tensor],
    by_outputs: &[&Tensor],
    inputs: &[&Tensor],
) -> Result<Vec<Option<Tensor>>, NativeError> {
    assert_eq!(outputs.len(), by_outputs.len(), "a gradient for every output");
    let (of, by, to) = (pointers(outputs), pointers(by_outputs), pointers(inputs));
    let mut found = vec![std::ptr::null_mut(); to.len()];
    // SAFETY: all pointers come from live tensors, which the borrows keep; counts are the lengths.
    let said = unsafe {
        clade_grad(of.as_ptr(), by.as_ptr(), of.len(), to.as_ptr(), to.len(), found.as_mut_ptr())
    };
    check(said)?;
    // SAFETY: what is not null is a new tensor that is ours to free.
    let take = |pointer: *mut C_tensor| unsafe { Tensor::from_ptr(pointer) };
    Ok(found.into_iter().map(|it| (!it.is_null()).then(|| take(it))).collect())
}

/// Copies bytes to a CUDA device without waiting for it.
///
/// # Shapes
///
/// - returns `[numbers]` u8
pub(crate) fn upload_bytes(numbers: &[u8], index: usize) -> Result<Tensor, NativeError> {
    upload(numbers.as_ptr().cast(), numbers.len(), numbers.len(), false, index)
}

/// Host memory that a CUDA device fetches from by itself; what it holds is left to chance.
///
/// # Shapes
///
/// - returns `[count]` u8
pub(crate) fn pinned_bytes(count: usize) -> Result<Tensor, NativeError> {
    let count = i64::try_from(count).expect("a batch fits memory");
    let mut made = std::ptr::null_mut();
    // SAFETY: the other side writes one pointer.
    check(unsafe { clade_pinned(count, &raw mut made) })?;
    // SAFETY: without an error it is a new tensor that is ours to free.
    Ok(unsafe { Tensor::from_ptr(made) })
}

/// Copies whole numbers to a CUDA device without waiting for it.
///
/// # Shapes
///
/// - returns `[numbers]` i64
pub(crate) fn upload_wide(numbers: &[i64], index: usize) -> Result<Tensor, NativeError> {
    upload(numbers.as_ptr().cast(), size_of_val(numbers), numbers.len(), true, index)
}

fn upload(
    data: *const c_void,
    bytes: usize,
    count: usize,
    is_wide: bool,
    index: usize,
) -> Result<Tensor, NativeError> {
    let count = i64::try_from(count).expect("a slice fits memory");
    let mut made = std::ptr::null_mut();
    // SAFETY: `data` and `bytes` are a live slice of the caller's; the other side copies it before
    // it returns, and writes one pointer.
    check(unsafe { clade_upload(data, bytes, count, is_wide, small(index), &raw mut made) })?;
    // SAFETY: without an error it is a new tensor that is ours to free.
    Ok(unsafe { Tensor::from_ptr(made) })
}

/// Tensors of one fused update; see [`fused_adamw`].
pub(crate) struct FusedAdamW<'a> {
    pub(crate) param: &'a Tensor,
    pub(crate) gradient: &'a Tensor,
    pub(crate) first: &'a Tensor,
    pub(crate) second: &'a Tensor,
    /// `[]` f32: this update's number, from 1.
    pub(crate) step: &'a Tensor,
    /// `[]` f32
    pub(crate) rate: &'a Tensor,
    /// `[]` f32: nothing is changed if it is 1.
    pub(crate) found_infinity: &'a Tensor,
}

/// One AdamW update in place, as torch's `AdamW(fused=True)`, wherever the tensors lie.
pub(crate) fn fused_adamw(
    tensors: &FusedAdamW<'_>,
    betas: (f64, f64),
    weight_decay: f64,
    eps: f64,
) -> Result<(), NativeError> {
    let FusedAdamW { param, gradient, first, second, step, rate, found_infinity } = tensors;
    // SAFETY: all pointers come from live tensors; in-place change of tensors needs no exclusive
    // borrow in tch either, and none of them is seen as a slice meanwhile.
    check(unsafe {
        clade_fused_adamw(
            param.as_ptr(),
            gradient.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            step.as_ptr(),
            rate.as_ptr(),
            betas.0,
            betas.1,
            weight_decay,
            eps,
            found_infinity.as_ptr(),
        )
    })
}

/// Bytes on a CUDA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceMemory {
    /// By this process, now.
    pub(crate) allocated: u64,
    /// By this process, at most since the last reset.
    pub(crate) peak: u64,
    /// Not taken by any process.
    pub(crate) free: u64,
    pub(crate) total: u64,
}

pub(crate) fn device_memory(index: usize) -> Result<DeviceMemory, NativeError> {
    let mut found = [0_i64; 4];
    let [allocated, peak, free, total] = &mut found;
    // SAFETY: four places to write a number each.
    check(unsafe { clade_device_memory(small(index), allocated, peak, free, total) })?;
    let [allocated, peak, free, total] = found.map(|bytes| u64::try_from(bytes).unwrap_or(0));
    Ok(DeviceMemory { allocated, peak, free, total })
}

/// Starts a new measurement of [`DeviceMemory::peak`].
pub(crate) fn reset_peak(index: usize) -> Result<(), NativeError> {
    // SAFETY: takes a plain number.
    check(unsafe { clade_reset_peak(small(index)) })
}

fn small(index: usize) -> c_int {
    c_int::try_from(index).unwrap_or(c_int::MAX)
}

/// A place in the work queued on a CUDA device.
#[derive(Debug)]
pub(crate) struct Event(*mut CEvent);

impl Event {
    /// Marks what has been queued so far.
    pub(crate) fn record(index: usize) -> Result<Self, NativeError> {
        let mut event = std::ptr::null_mut();
        // SAFETY: a place to write one pointer.
        check(unsafe { clade_event_record(small(index), &raw mut event) })?;
        Ok(Self(event))
    }

    /// Returns once the device has come to it.
    pub(crate) fn wait(&self) -> Result<(), NativeError> {
        // SAFETY: the pointer was made by `record` and lives until `drop`.
        check(unsafe { clade_event_wait(self.0) })
    }
}

impl Event {
    /// Whether the device has come to it.
    pub(crate) fn is_passed(&self) -> Result<bool, NativeError> {
        let mut passed = false;
        // SAFETY: as in `wait`, and a place for one flag.
        check(unsafe { clade_event_passed(self.0, &raw mut passed) })?;
        Ok(passed)
    }
}

/// A stream of a CUDA device's beside the one that tensors are computed on.
#[derive(Debug)]
pub(crate) struct Stream {
    stream: *mut CStream,
    /// As the driver and its libraries know it.
    handle: *mut c_void,
}

impl Stream {
    pub(crate) fn new(index: usize) -> Result<Self, NativeError> {
        let (mut stream, mut handle) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: two places to write a pointer each.
        check(unsafe { clade_stream_new(small(index), &raw mut stream, &raw mut handle) })?;
        Ok(Self { stream, handle })
    }

    pub(super) const fn handle(&self) -> *mut c_void {
        self.handle
    }

    /// What is queued here from now on waits for the tensors that are queued to be computed.
    pub(crate) fn follow_tensors(&self) -> Result<Event, NativeError> {
        self.join(false)
    }

    /// Tensors that are queued from now on wait for what is queued here; the event tells when that is done.
    pub(crate) fn lead_tensors(&self) -> Result<Event, NativeError> {
        self.join(true)
    }

    fn join(&self, is_current_to_wait: bool) -> Result<Event, NativeError> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the stream was made by `new`, and there is a place for one pointer.
        check(unsafe { clade_stream_join(self.stream, is_current_to_wait, &raw mut event) })?;
        Ok(Event(event))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { clade_stream_free(self.stream) }
    }
}

// SAFETY: a c10::Stream is a name of a stream of the driver's, which any thread may use.
unsafe impl Send for Stream {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `record`, freed once.
        unsafe { clade_event_free(self.0) }
    }
}

// SAFETY: a c10::Event may be waited for and freed on any thread; it is used by one at a time.
unsafe impl Send for Event {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_follow_the_given_output_gradients() {
        let x = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]).set_requires_grad(true);
        let unused = Tensor::from_slice(&[0.0_f32]).set_requires_grad(true);
        let by = Tensor::from_slice(&[1.0_f32, 10.0, 100.0]);
        let found = grad(&[&(&x * &x)], &[&by], &[&x, &unused]).unwrap();
        let by_x = Vec::<f32>::try_from(found[0].as_ref().unwrap()).unwrap();
        assert_eq!(by_x, [2.0, 40.0, 600.0]);
        assert!(found[1].is_none());
    }

    #[test]
    fn what_libtorch_refuses_comes_back_as_words() {
        let x = Tensor::from_slice(&[1.0_f32]);
        let said = grad(&[&x], &[&x], &[&x]).unwrap_err().to_string();
        assert!(said.contains("does not require grad"), "{said}");
        if crate::device::why_no_gpu().is_some() {
            let said = Event::record(0).unwrap_err().to_string();
            assert!(!said.is_empty());
            let said = upload_bytes(&[1], 0).unwrap_err().to_string();
            assert!(!said.is_empty());
        }
    }
}
