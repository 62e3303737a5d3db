# Sourced by the scripts beside it: fetching one pinned file, and putting a
# folder in place whole. It refuses content whose digest is not in digests.txt,
# and never leaves a half-written file or folder under its final name.
# shellcheck shell=bash

set -euo pipefail

setup=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$setup/../.." && pwd)
downloads=$project/assets/downloads
digests=$setup/digests.txt

say() { printf 'set-up: %s\n' "$*"; }

# What is wrong, and what to do next, in one sentence.
fail() {
  printf 'set-up: error: %s\n' "$*" >&2
  exit 1
}

# Removes its scratch folder however the script ends.
scratch=
new_scratch() {
  mkdir -p "$1" || fail "cannot write to $1: give this user a checkout of its own"
  # Under the lock, any other is the rest of a set-up that was killed.
  rm -rf "$1"/.partial.*
  scratch=$(mktemp -d "$1/.partial.XXXXXX") || fail "cannot write to $1: give this user a checkout of its own"
  trap 'rm -rf "$scratch"' EXIT
}

# One set-up at a time in one checkout; a second one waits for the first.
lock() {
  { mkdir -p "$project/assets" && : >>"$project/assets/.lock"; } ||
    fail "cannot write to $project/assets: give this user a checkout of its own"
  exec 9>>"$project/assets/.lock"
  flock -n 9 || { say "waiting for another set-up in this checkout"; flock 9; }
}

digest_of() {
  awk -v file="$1" '$2 == file { print $1 }' "$digests" | grep . ||
    fail "$1 is not in deploy/setup/digests.txt: add its sha256 there"
}

# The digests of the named files, one a line: what a stamp holds.
digests_of() { local file; for file; do printf '%s  %s\n' "$(digest_of "$file")" "$file"; done; }

is_sound() { [ -f "$1" ] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status; }

# fetch FILE COMMAND...: puts FILE into the cache unless it is there already.
# COMMAND downloads it into the current folder.
fetch() {
  local file=$1 digest found
  shift
  digest=$(digest_of "$file")
  if is_sound "$downloads/$file" "$digest"; then return; fi
  new_scratch "$downloads"
  say "downloading $file"
  (cd "$scratch" && "$@") ||
    fail "could not download $file (the reason stands above): check the network and run this again, or put that file into assets/downloads by hand"
  [ -f "$scratch/$file" ] || {
    found=$(ls "$scratch")
    fail "asked for $file and got '$found': put the right file into assets/downloads by hand"
  }
  is_sound "$scratch/$file" "$digest" ||
    fail "$file is not the file that deploy/setup/digests.txt names (its sha256 differs): run this again, and do not use it if it differs again"
  mv "$scratch/$file" "$downloads/$file"
  rm -rf "$scratch"
}

# fetch_wheel FILE REQUIREMENT: the same wheel on every machine, whatever
# Python it has. pip builds and installs nothing here.
fetch_wheel() {
  fetch "$1" wheel "$2"
}

wheel() {
  python3 -m pip --version >/dev/null 2>&1 ||
    fail "python3 has no pip, which fetches $1: install python3-pip (apt-get install python3-pip python3-venv)"
  # pip collects the download in TMPDIR, and /tmp may be small.
  TMPDIR=$PWD python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
    --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --dest . "$1"
}

# is_stamped FOLDER STAMP: whether FOLDER was put in place from these inputs.
is_stamped() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }

# put_in_place FOLDER STAMP: the scratch folder becomes FOLDER, by rename, with
# its stamp inside: FOLDER is the old one or the new one, never half of each.
put_in_place() {
  printf '%s\n' "$2" >"$scratch/.stamp"
  chmod 755 "$scratch"
  rm -rf "$1.old"
  if [ -e "$1" ]; then mv -T "$1" "$1.old"; fi
  mv -T "$scratch" "$1"
  rm -rf "$1.old"
}

# unpack WHEEL MEMBER=PATH...: copies members of a wheel into the scratch
# folder; a MEMBER that ends in / stands for everything below it.
unpack() {
  python3 "$setup/unpack.py" "$downloads/$1" "$scratch" "${@:2}" ||
    fail "could not unpack $1 (the reason stands above): free some disk space or delete assets/downloads/$1, then run this again"
}
