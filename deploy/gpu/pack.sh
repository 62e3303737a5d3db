#!/bin/sh
# Puts what a GPU machine needs into one folder, at most 64 MiB: `pack.sh FOLDER`.
# Wants target/release/clade-worker (or CLADE_WORKER) and pip.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
if [ $# -ne 1 ]; then
    echo "usage: pack.sh FOLDER" >&2
    exit 1
fi
worker=${CLADE_WORKER:-$root/target/release/clade-worker}
if [ ! -x "$worker" ]; then
    echo "no clade-worker at $worker: run \`make build\`, or set CLADE_WORKER" >&2
    exit 1
fi
mkdir -p "$1/bench" "$1/gpu"
cp "$root"/deploy/bench/*.py "$1/bench/"
cp "$here"/*.sh "$here"/*.py "$1/gpu/"
strip -o "$1/gpu/clade-worker" "$worker"
# Pure Python only, and without what they depend on: torch, torchvision and timm are there already.
"${PYTHON:-python3}" -m pip install --quiet --no-deps --target "$1/gpu/python" -r "$here/requirements.txt"
du -sh "$1"
