#!/usr/bin/env bash
# Puts an S3 server for tests (moto, Apache-2.0) into .venv-s3: about 140 MB, pinned in
# s3-requirements.txt. The tests of `clade-store` start and end it themselves.
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

requirements=$setup/s3-requirements.txt
target=$project/.venv-s3

lock
if cmp -s "$requirements" "$target/.complete"; then
  say "S3 server is in place"
  exit
fi
rm -rf "$target"
say "installing an S3 server for tests"
python3 -m venv "$target" || fail "could not make $target (the reason stands above): install python3-venv and run this again"
"$target/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" ||
  fail "could not install moto (the reason stands above): check the network and run this again"
cp "$requirements" "$target/.complete"
say "S3 server is in place"
