#!/usr/bin/env bash
# Puts what judges YAML, Kubernetes objects and Dockerfiles into .venv-chart: about 110 MB, pinned
# in chart-requirements.txt. `make chart` runs it; nothing else needs it.
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

requirements=$setup/chart-requirements.txt
target=$project/.venv-chart

lock
if cmp -s "$requirements" "$target/.complete"; then
  say "linters of the chart are in place"
  exit
fi
rm -rf "$target"
say "installing linters of the chart"
python3 -m venv "$target" || fail "could not make $target (the reason stands above): install python3-venv and run this again"
"$target/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" ||
  fail "could not install the linters of the chart (the reason stands above): check the network and run this again"
cp "$requirements" "$target/.complete"
say "linters of the chart are in place"
