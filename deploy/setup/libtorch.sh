#!/usr/bin/env bash
# Puts libtorch 2.11 into assets/libtorch, out of the PyPI wheel of torch: what
# the build links, without Python. A LIBTORCH that is set is used as it is.
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$project/assets/libtorch" ]; then
  [ -f "$LIBTORCH/lib/libtorch_cpu.so" ] && [ -d "$LIBTORCH/include" ] ||
    fail "LIBTORCH is $LIBTORCH, which has no lib/libtorch_cpu.so or no include/: correct it, or unset it to have libtorch 2.11 fetched"
  if [ -f "$LIBTORCH/build-version" ]; then
    version=$(cat "$LIBTORCH/build-version")
    [[ $version == 2.11.* ]] ||
      fail "LIBTORCH is $LIBTORCH, version $version, and 2.11 is needed: correct it, or unset it to have libtorch 2.11 fetched"
  fi
  say "libtorch: using LIBTORCH=$LIBTORCH"
  exit
fi

machine=$(uname -sm)
[ "$machine" = "Linux x86_64" ] ||
  fail "libtorch is fetched for Linux x86_64 only and this is $machine: set LIBTORCH to a libtorch 2.11 of your own"

target=$project/assets/libtorch
torch=torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl
cudart=nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl
cupti=nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl
stamp=$(digests_of $torch $cudart $cupti)

lock
if is_stamped "$target" "$stamp" && [ -f "$target/lib/libtorch_cpu.so" ]; then
  say "libtorch 2.11.0 is in place"
  exit
fi
fetch_wheel $torch torch==2.11.0
fetch_wheel $cudart nvidia-cuda-runtime==13.0.96
fetch_wheel $cupti nvidia-cuda-cupti==13.0.85

say "unpacking libtorch (0.5 GB)"
new_scratch "$project/assets"
# libtorch_cpu.so names the last two, so the linker wants them on any machine.
unpack $torch torch/include/=include \
  torch/lib/libtorch_cpu.so=lib/libtorch_cpu.so torch/lib/libtorch.so=lib/libtorch.so \
  torch/lib/libc10.so=lib/libc10.so torch/lib/libgomp.so.1=lib/libgomp.so.1
unpack $cudart nvidia/cu13/lib/libcudart.so.13=lib/libcudart.so.13
unpack $cupti nvidia/cu13/lib/libcupti.so.13=lib/libcupti.so.13
echo 2.11.0 >"$scratch/build-version"
put_in_place "$target" "$stamp"
say "libtorch 2.11.0 is in place"
