#!/usr/bin/env bash
# Puts the demo's pictures into data/openclipart: Debian's packages of Open
# Clip Art (public domain).
source "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

target=$project/data/openclipart
version=0.18+dfsg-19
png=openclipart-png_1%3a${version}_all.deb
svg=openclipart-svg_1%3a${version}_all.deb
stamp=$(digests_of "$png" "$svg")

lock
if is_stamped "$target" "$stamp"; then
  say "pictures are in place"
  exit
fi
fetch_packages "$png" "openclipart-png=1:$version" "$svg" "openclipart-svg=1:$version"

say "unpacking the pictures (0.3 GB)"
new_scratch "$project/data"
unpack_package "$png" "$scratch"
unpack_package "$svg" "$scratch"
put_in_place "$target" "$stamp"
say "pictures are in place"
