#!/bin/sh
# Runs the GPU cases of the benchmark on a machine without network and without Rust:
# `bench.sh [options of deploy/bench/clip.py]`. Results go to $OUT (default: ./out).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
mkdir -p "$OUT"
{
    uname -srm
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
} | tee "$OUT/machine.txt"
# To a file and then shown, and not through a pipe, whose status would be tee's.
status=0
"$PYTHON" "$here/../bench/clip.py" --cases gpu --clade "$CLADE_WORKER" --out "$OUT/bench.json" "$@" >"$OUT/bench.txt" 2>&1 || status=$?
cat "$OUT/bench.txt"
exit $status
