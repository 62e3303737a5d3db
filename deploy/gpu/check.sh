#!/bin/sh
# Checks Clade on a GPU, one line per check: `check NAME: ok`, `FAILED why` or `skipped: why`.
# Exits with 1 if anything failed. Files go to $OUT (default: ./out).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
mkdir -p "$OUT"
status=0
"$PYTHON" "$here/check.py" --clade "$CLADE_WORKER" --out "$OUT" >"$OUT/check.txt" 2>&1 || status=$?
cat "$OUT/check.txt"
exit $status
