#!/usr/bin/env bash
# Puts what builds libjpeg-turbo into assets/libjpeg-tools: CMake and NASM.
#
# The library itself comes with the crate turbojpeg-sys as source, so Cargo.lock
# pins it, cargo builds it, and binaries hold it. Debian's libturbojpeg.a will
# not do: it is 2.1, and the crate needs 3. NASM assembles the SIMD code, which
# most of the library's speed is; PyPI has none, so it is Debian's, and a
# machine that has a nasm of its own needs no Debian.
#
# .cargo/config.toml points CMAKE and ASM_NASM here; those that are set are used.
source "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

target=$project/assets/libjpeg-tools
cmake=cmake-4.4.4-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl
nasm=nasm_2.16.01-1_amd64.deb
own=$(command -v nasm || true)
stamp=$(digests_of $cmake)$'\n'${own:-$(digests_of $nasm)}

works() { "$1/bin/cmake" --version && "$1/bin/nasm" -v; } >/dev/null 2>&1

lock
if is_stamped "$target" "$stamp" && works "$target"; then
  say "the tools that build libjpeg-turbo are in place"
  exit
fi
fetch_wheel $cmake cmake==4.4.4
if [ -z "$own" ]; then
  command -v apt-get >/dev/null || [ -f "$downloads/$nasm" ] ||
    fail "this machine has no nasm, and no apt-get that could fetch it: install nasm, then run this again"
  fetch_packages $nasm nasm=2.16.01-1
fi

new_scratch "$project/assets"
unpack $cmake cmake/data/bin/cmake=bin/cmake cmake/data/share/cmake-4.4/=share/cmake-4.4
chmod 755 "$scratch/bin/cmake"
if [ -n "$own" ]; then
  ln -s "$own" "$scratch/bin/nasm"
else
  unpack_package $nasm "$scratch/package"
  mv "$scratch/package/usr/bin/nasm" "$scratch/bin/nasm"
  rm -rf "$scratch/package"
fi
works "$scratch" ||
  fail "cmake and nasm do not run on this machine: install nasm and cmake, and set CMAKE and ASM_NASM to where they are"
put_in_place "$target" "$stamp"
say "the tools that build libjpeg-turbo are in place"
