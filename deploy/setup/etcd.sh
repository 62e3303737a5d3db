#!/usr/bin/env bash
# Puts etcd and etcdctl 3.4 into assets/etcd: the oldest release that Clade is
# tested with, and Debian 12's. Only tests start it; an installation brings its own.
source "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

target=$project/assets/etcd
version=3.4.23-4+b4
server=etcd-server_${version}_amd64.deb
client=etcd-client_${version}_amd64.deb
stamp=$(digests_of "$server" "$client")

works() { "$1/bin/etcd" --version && "$1/bin/etcdctl" version; } >/dev/null 2>&1

lock
if is_stamped "$target" "$stamp" && works "$target"; then
  say "etcd is in place"
  exit
fi
fetch_packages "$server" "etcd-server=$version" "$client" "etcd-client=$version"

new_scratch "$project/assets"
unpack_package "$server" "$scratch/package"
unpack_package "$client" "$scratch/package"
mv "$scratch/package/usr/bin" "$scratch/bin"
rm -rf "$scratch/package"
works "$scratch" ||
  fail "Debian's etcd does not run on this machine: it is built for Linux on x86-64"
put_in_place "$target" "$stamp"
say "etcd is in place"
