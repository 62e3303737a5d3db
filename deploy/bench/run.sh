#!/bin/sh
# Compares Clade with others: `run.sh clip.py [its options]`, and likewise tokens.py (both beside open_clip) and data.py
# (beside webdataset and cp). Makes a virtual environment of about 6 GB the first time; PEER_PYTHON names a python3
# that has them already.
set -eu

script=${1:?name a script: clip.py, tokens.py or data.py}
shift

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${CLADE_BENCH_VENV:-$root/.venv-bench}

peers='torch, open_clip'
if [ "$script" = data.py ]; then
    peers="$peers, torchvision, webdataset"
fi

if [ -n "${PEER_PYTHON:-}" ]; then
    if ! "$PEER_PYTHON" -c "import $peers" 2>/dev/null; then
        echo "PEER_PYTHON is $PEER_PYTHON, which cannot import $peers: correct it, or unset it" >&2
        exit 1
    fi
    exec "$PEER_PYTHON" "$here/$script" "$@"
fi
if ! cmp -s "$here/requirements.txt" "$venv/.complete"; then
    echo "making $venv (once; about 6 GB)"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/.complete"
fi
exec "$venv/bin/python" "$here/$script" "$@"
