// What tch does not offer and training needs: gradients by given output gradients, the fused
// optimizer with its "found infinity" switch, device memory figures, events.
//
// Only libtorch_cpu and libc10 are linked: devices are reached through their virtual interfaces,
// which libtorch_cuda fills in when it is loaded. No exception leaves this file: a function returns
// null, or the error's text, which the caller frees with clade_free.

#include <c10/core/GradMode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace {

using Aggregate = c10::CachingAllocator::StatType;

template <class Body>
char* guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown error");
  }
}

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> found;
  found.reserve(count);
  for (size_t i = 0; i < count; ++i) found.push_back(*tensors[i]);
  return found;
}

}  // namespace

extern "C" {

void clade_free(char* text) { free(text); }

// found[i] becomes a new tensor, or null where no output depends on inputs[i].
char* clade_grad(at::Tensor* const* outputs, at::Tensor* const* by_outputs, size_t output_count,
                 at::Tensor* const* inputs, size_t input_count, at::Tensor** found) {
  return guarded([&] {
    auto gradients = torch::autograd::grad(list(outputs, output_count), list(inputs, input_count),
                                           list(by_outputs, output_count),
                                           /*retain_graph=*/false, /*create_graph=*/false,
                                           /*allow_unused=*/true);
    for (size_t i = 0; i < input_count; ++i) {
      found[i] = gradients[i].defined() ? new at::Tensor(std::move(gradients[i])) : nullptr;
    }
  });
}

// Copies `bytes` from `data` into a new tensor [count] of u8 or i64 on a CUDA device: once into
// pinned memory, and from there without waiting.
char* clade_upload(const void* data, size_t bytes, int64_t count, bool is_wide, int index,
                   at::Tensor** made) {
  return guarded([&] {
    auto options = at::TensorOptions(is_wide ? at::kLong : at::kByte);
    auto host = at::empty({count}, options.pinned_memory(true));
    TORCH_CHECK(host.nbytes() == bytes, "a tensor of ", host.nbytes(), " bytes for ", bytes);
    std::memcpy(host.data_ptr(), data, bytes);
    c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    *made = new at::Tensor(host.to(device, host.scalar_type(), /*non_blocking=*/true));
  });
}

// Host memory that a CUDA device fetches from by itself.
char* clade_pinned(int64_t count, at::Tensor** made) {
  return guarded([&] {
    *made = new at::Tensor(at::empty({count}, at::TensorOptions(at::kByte).pinned_memory(true)));
  });
}

// One update in place, unless *found_infinity holds 1; rate and step are tensors on the device.
char* clade_fused_adamw(at::Tensor* param, at::Tensor* gradient, at::Tensor* first,
                        at::Tensor* second, at::Tensor* step, at::Tensor* rate, double beta1,
                        double beta2, double weight_decay, double eps, at::Tensor* found_infinity) {
  return guarded([&] {
    c10::AutoGradMode no_graph(false);
    std::vector<at::Tensor> params{*param}, gradients{*gradient}, firsts{*first}, seconds{*second},
        steps{*step};
    at::_fused_adamw_(params, gradients, firsts, seconds, {}, steps, *rate, beta1, beta2,
                      weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false,
                      /*grad_scale=*/std::nullopt, *found_infinity);
  });
}

// Bytes on a CUDA device: allocated now, the most allocated since the last reset, free and in all.
char* clade_device_memory(int index, int64_t* allocated, int64_t* peak, int64_t* unused,
                          int64_t* total) {
  return guarded([&] {
    auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    auto device = static_cast<c10::DeviceIndex>(index);
    auto stats = allocator->getDeviceStats(device);
    const auto& bytes = stats.allocated_bytes[static_cast<size_t>(Aggregate::AGGREGATE)];
    auto [free_bytes, all_bytes] = allocator->getMemoryInfo(device);
    *allocated = bytes.current;
    *peak = bytes.peak;
    *unused = static_cast<int64_t>(free_bytes);
    *total = static_cast<int64_t>(all_bytes);
  });
}

char* clade_reset_peak(int index) {
  return guarded([&] {
    c10::getDeviceAllocator(c10::DeviceType::CUDA)
        ->resetPeakStats(static_cast<c10::DeviceIndex>(index));
  });
}

// Marks the place that the device's current stream has come to.
char* clade_event_record(int index, c10::Event** event) {
  return guarded([&] {
    c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    c10::impl::VirtualGuardImpl guard(device.type());
    auto made = std::make_unique<c10::Event>(device.type());
    made->record(guard.getStream(device));
    *event = made.release();
  });
}

char* clade_event_wait(c10::Event* event) {
  return guarded([&] { event->synchronize(); });
}

// Whether the device has come to it.
char* clade_event_passed(c10::Event* event, bool* passed) {
  return guarded([&] { *passed = event->query(); });
}

void clade_event_free(c10::Event* event) { delete event; }

// A stream that waits for no other unless told to, and the driver's own handle of it.
char* clade_stream_new(int index, c10::Stream** made, void** handle) {
  return guarded([&] {
    c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    c10::impl::VirtualGuardImpl guard(device.type());
    // NCCL joins on the calling thread's current device.
    guard.setDevice(device);
    auto stream = std::make_unique<c10::Stream>(guard.getNewStream(device));
    *handle = guard.getStreamNativeHandle(*stream);
    *made = stream.release();
  });
}

// Lets the stream wait for all that is queued on the device's current stream; or, the other way round, that
// one for it. The event marks the place that was waited for.
char* clade_stream_join(c10::Stream* stream, bool is_current_to_wait, c10::Event** event) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl guard(stream->device_type());
    auto current = guard.getStream(stream->device());
    auto made = std::make_unique<c10::Event>(stream->device_type());
    made->record(is_current_to_wait ? *stream : current);
    made->block(is_current_to_wait ? current : *stream);
    *event = made.release();
  });
}

void clade_stream_free(c10::Stream* stream) { delete stream; }

}  // extern "C"
