# Read by bench.sh and check.sh, with `here` set: finds Python, its libtorch and Clade's binary.
PYTHON=${PYTHON:-python3}
OUT=${OUT:-out}
CLADE_WORKER=${CLADE_WORKER:-$here/clade-worker}
if [ ! -x "$CLADE_WORKER" ]; then
    echo "no clade-worker at $CLADE_WORKER: carry it there, or set CLADE_WORKER" >&2
    exit 1
fi
# What pack.sh put beside this file, for a machine whose Python lacks open_clip.
if [ -d "$here/python" ]; then
    export PYTHONPATH="$here/python${PYTHONPATH:+:$PYTHONPATH}"
fi
# The binary links libtorch as the wheel of torch holds it; that in turn wants NVIDIA's libraries,
# which lie in wheels of their own beside it or, in some builds, in torch/lib.
if ! libraries=$("$PYTHON" -c '
import glob, os, torch
home = os.path.dirname(torch.__file__)
beside = sorted(glob.glob(os.path.join(os.path.dirname(home), "nvidia", "*", "lib")))
print(":".join([os.path.join(home, "lib"), *beside]))'); then
    echo "$PYTHON has no torch: set PYTHON to one that has torch 2.11" >&2
    exit 1
fi
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
