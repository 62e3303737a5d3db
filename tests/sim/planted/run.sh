#!/usr/bin/env bash
# Plants one bug after another in a copy of the scheduler, and plays worlds until one of them fails:
# `run.sh [pattern]`, such as `run.sh '*quarantine*'`. The core's own tests do not count, only the simulation.
# Ends with 1 if a patch does not apply any more, or if its bug survives the gate's worlds (SEEDS=2000).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
seeds=${SEEDS:-2000}
target=${CARGO_TARGET_DIR:-$root/target}/planted
# Always the same place: cargo would build everything anew in another.
copy=$target/source
export CARGO_TARGET_DIR=$target
# The copy is no repository of its own, and git must not look for one around it.
export GIT_CEILING_DIRECTORIES=$target

mkdir -p "$target"
exec 9>"$target/lock"
flock 9
rm -rf "$copy"
mkdir -p "$copy"
(cd "$root" && git ls-files -z | tar --create --null --files-from -) |
  tar --extract --directory "$copy"
cd "$copy"

# Most bugs are found by the first worlds: what is built once for each need not be fast.
light=(--config profile.dev.package.clade-core.opt-level=1
  --config profile.dev.package.clade-sim.opt-level=1)

failed=0
tried=0
for patch in "$here"/${1:-}*.patch; do
  name=$(basename "$patch" .patch)
  [[ -e $patch ]] || { echo "no bug is called ${1:-}" >&2; exit 1; }
  tried=$((tried + 1))
  if ! git apply -p1 "$patch" 2>"$target/why"; then
    echo "$name: the patch does not apply any more: $(head -1 "$target/why")"
    failed=$((failed + 1))
    continue
  fi
  begun=$SECONDS
  if ! cargo build --quiet --package clade-sim "${light[@]}" 2>"$target/why" 9>&-; then
    echo "$name: does not build: $(grep -m1 '^error' "$target/why")"
    failed=$((failed + 1))
  else
    built=$((SECONDS - begun))
    played=$SECONDS
    # A failed world ends the series; what it says is indented after the first line.
    if "$target/debug/clade-sim" --seeds "$seeds" >"$target/played" 9>&-; then
      echo "$name: NOT FOUND in $seeds worlds"
      failed=$((failed + 1))
    elif why=$(grep -m1 '^seed ' "$target/played"); then
      echo "$name: found by ${why:0:150} ($((SECONDS - played)) s, build $built s)"
    else
      echo "$name: the simulation ended without a word"
      failed=$((failed + 1))
    fi
  fi
  git apply -p1 --reverse "$patch"
done
echo "$tried bugs were planted, $((tried - failed)) found"
exit $((failed > 0))
