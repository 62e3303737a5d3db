#!/usr/bin/env bash
# Puts the demo's pictures into data/openclipart: Debian's packages of Open
# Clip Art (public domain), unpacked but not installed, so no root is needed.
# The package lists are private too: the machine's own may be absent.
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

target=$project/data/openclipart
version=0.18+dfsg-19
png=openclipart-png_1%3a${version}_all.deb
svg=openclipart-svg_1%3a${version}_all.deb
stamp=$(digests_of "$png" "$svg")
lists=$downloads/.apt

apt() {
  apt-get -q -o Dir::State="$lists/state" -o Dir::State::status=/var/lib/dpkg/status \
    -o Dir::Cache="$lists/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root "$@" >>"$lists/log" 2>&1
}

package() {
  command -v apt-get >/dev/null ||
    fail "$1 is a package of Debian 12 and this machine has no apt-get: put the files named in deploy/setup/digests.txt into assets/downloads by hand"
  if [ ! -d "$lists" ]; then
    mkdir -p "$lists/state/lists/partial" "$lists/cache/archives/partial"
    # A source that fails matters only if it is the one that has the package.
    apt update || true
  fi
  apt download "$1" || {
    cat "$lists/log" >&2
    return 1
  }
}

lock
if is_stamped "$target" "$stamp"; then
  say "pictures are in place"
  exit
fi
command -v dpkg-deb >/dev/null ||
  fail "this machine has no dpkg-deb, which unpacks the pictures: install the package dpkg"
rm -rf "$lists"
fetch "$png" package "openclipart-png=1:$version"
fetch "$svg" package "openclipart-svg=1:$version"
rm -rf "$lists"

say "unpacking the pictures (0.3 GB)"
new_scratch "$project/data"
for package in "$png" "$svg"; do
  dpkg-deb -x "$downloads/$package" "$scratch" ||
    fail "could not unpack $package (the reason stands above): free some disk space, then run this again"
done
put_in_place "$target" "$stamp"
say "pictures are in place"
