#!/bin/sh
# Compares the models of a bundle with open_clip's own: `run.sh BUNDLE`, or `run.sh` for the newest
# bundle of the demo's run. Makes a virtual environment of about 6 GB the first time.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${CLADE_OPENCLIP_VENV:-$root/.venv-openclip}

if [ $# -ge 1 ]; then
    bundle=$1
else
    # The pointer file says which bundle is the run's; the newest pointer wins.
    pointer=$(ls -t "$root"/clade-data/runs/*/bundle/current.json 2>/dev/null | head -n 1 || true)
    if [ -z "$pointer" ]; then
        echo "no bundle found: run \`make demo\` first, or name a bundle's folder" >&2
        exit 1
    fi
    digest=$(sed -n 's/.*"bundle": *"\([0-9a-f]*\)".*/\1/p' "$pointer")
    bundle=$(dirname "$pointer")/$digest
fi
if [ ! -f "$bundle/manifest.json" ]; then
    echo "$bundle is no bundle: it has no manifest.json" >&2
    exit 1
fi

if ! cmp -s "$here/requirements.txt" "$venv/.complete"; then
    echo "making $venv (once; about 6 GB)"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/.complete"
fi
echo "bundle: $bundle"
exec "$venv/bin/python" "$here/check.py" "$bundle"
