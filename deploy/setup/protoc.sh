#!/usr/bin/env bash
# Puts protoc into assets/protoc: the build script of the crate etcd-client runs
# it, and offers no other way.
#
# Debian's is a small program and two libraries, so what stands in bin/ is a
# script that names their folder. A machine that has a protoc of its own needs
# no Debian.
#
# .cargo/config.toml points PROTOC here; one that is set is used.
source "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

target=$project/assets/protoc
version=3.21.12-3+deb12u1
packages=(protobuf-compiler libprotoc32 libprotobuf32 libprotobuf-dev)
files=()
for name in "${packages[@]}"; do files+=("${name}_${version}_amd64.deb"); done
own=$(command -v protoc || true)
stamp=${own:-$(digests_of "${files[@]}")}

# It must find the descriptions of google/protobuf by itself, too.
works() {
  printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto";' >"$1/try.proto" &&
    "$1/bin/protoc" --proto_path="$1" --descriptor_set_out=/dev/null "$1/try.proto"
} >/dev/null 2>&1

lock
if is_stamped "$target" "$stamp" && works "$target"; then
  say "protoc is in place"
  exit
fi
if [ -z "$own" ]; then
  command -v apt-get >/dev/null || [ -f "$downloads/${files[0]}" ] ||
    fail "this machine has no protoc, and no apt-get that could fetch it: install protobuf-compiler and its include files, then run this again"
  wanted=()
  for name in "${packages[@]}"; do wanted+=("${name}_${version}_amd64.deb" "$name=$version"); done
  fetch_packages "${wanted[@]}"
fi

new_scratch "$project/assets"
mkdir "$scratch/bin"
if [ -n "$own" ]; then
  ln -s "$own" "$scratch/bin/protoc"
else
  for file in "${files[@]}"; do unpack_package "$file" "$scratch/package"; done
  mkdir "$scratch/include" "$scratch/lib"
  mv "$scratch/package/usr/bin/protoc" "$scratch/lib/protoc"
  mv "$scratch/package/usr/include/google" "$scratch/include/google"
  mv "$scratch/package/usr/lib/x86_64-linux-gnu/"libproto{c,buf}.so.* "$scratch/lib/"
  rm -rf "$scratch/package"
  cat >"$scratch/bin/protoc" <<'SCRIPT'
#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
LD_LIBRARY_PATH="$here/lib" exec "$here/lib/protoc" "$@" --proto_path="$here/include"
SCRIPT
  chmod 755 "$scratch/bin/protoc"
fi
works "$scratch" ||
  fail "protoc does not run on this machine: install protobuf-compiler and libprotobuf-dev, and set PROTOC to where protoc is"
put_in_place "$target" "$stamp"
say "protoc is in place"
