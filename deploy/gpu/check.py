"""Checks that Clade trains on a GPU as it does on a CPU, and says plainly when memory runs out.

Losses of the same batches are compared step by step, through the protocol of the benchmark.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
import inputs  # noqa: E402
from side import Side, SideError  # noqa: E402

# name, model, pairs, precision, steps, largest relative difference of a loss from the CPU's in f32
TRAININGS = [
    ("small-f32", "small", 128, "f32", 12, 1e-3),
    ("small-bf16", "small", 128, "bf16", 12, 2e-2),
    ("b32-f32", "ViT-B-32", 16, "f32", 6, 1e-3),
    ("b32-bf16", "ViT-B-32", 16, "bf16", 6, 2e-2),
]
GANGS = ["gang-exchange-2", "gang-bandwidth", "gang-exchange-3", "gang-exchange-4", "gang-exchange-8", "gang-dies", "gang-stalls", "gang-small-f32", "gang-b32-f32"]
RATES = {"small": 3e-4, "ViT-B-32": 5e-5, "ViT-L-14": 5e-5}
# No GPU of today holds L/14's activations of so many pairs: about 280 MB each.
HUGE_MODEL, HUGE_PAIRS = "ViT-L-14", 2048

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--clade", type=pathlib.Path, required=True)
parser.add_argument("--device", default="cuda:0", help="cpu shows that the checks themselves work")
parser.add_argument("--threads", type=int, default=4)
parser.add_argument("--huge-pairs", type=int, default=HUGE_PAIRS)
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
args = parser.parse_args()
program = [sys.executable, str(args.clade)] if args.clade.suffix == ".py" else [str(args.clade)]
failures, record = [], {}


def say(name, verdict):
    print(f"check {name}: {verdict}", flush=True)
    record[name] = {**record.get(name, {}), "verdict": verdict}
    if verdict.startswith("FAILED"):
        failures.append(name)


def devices():
    """What `clade-worker devices` lists, by name; None if it fails."""
    try:
        found = subprocess.run([*program, "devices"], capture_output=True, text=True, timeout=300)
        if found.returncode:
            raise ValueError((found.stderr.strip().splitlines() or ["no message"])[-1])
        lines = [json.loads(line) for line in found.stdout.splitlines() if line.strip()]
        by_name = {line["device"]: line for line in lines}
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        return say("devices", f"FAILED {error}")
    record["devices"] = {"found": lines}
    if "cpu" not in by_name:
        return say("devices", f"FAILED the CPU is not among {list(by_name)}")
    gpu = by_name.get("cuda:0")
    if gpu is not None and not (gpu.get("name") and gpu.get("memoryBytes", 0) > 0):
        return say("devices", f"FAILED a GPU has a name and memory, found {gpu}")
    say("devices", "ok, " + (f"{gpu['name']} with {gpu['memoryBytes'] / 2**30:.0f} GiB" if gpu else "no GPU"))
    return by_name


def options(folder, model, pairs, device, precision):
    return [
        "--model", folder / model, "--batches", folder / f"{model}-{pairs}.safetensors", "--device", device, "--precision", precision,
        "--threads", args.threads, "--micro-batch", pairs, "--learning-rate", RATES[model], "--weight-decay", 0.2,
    ]


def train(folder, model, pairs, device, precision, steps):
    """Losses of each step; the files are made by whoever asks first."""
    batches = folder / f"{model}-{pairs}.safetensors"
    if not batches.exists():
        config = inputs.write_model(folder / model, model)
        inputs.write_batches(batches, config, 4 if pairs < 1000 else 1, pairs)
    side = Side("clade", args.clade, options(folder, model, pairs, device, precision), args.threads, args.out / f"{model}-{precision}-{device.replace(':', '')}.log")
    try:
        done = side.train(steps)
        return side.ready, side.losses, done
    finally:
        side.close()


def check_training(folder):
    expected = {}
    for name, model, pairs, precision, steps, limit in TRAININGS:
        try:
            if model not in expected:
                expected[model] = train(folder, model, pairs, "cpu", "f32", steps)[1]
            ready, losses, done = train(folder, model, pairs, args.device, precision, steps)
        except SideError as error:
            say(name, f"FAILED {error}")
            continue
        off = max(abs(a - b) / abs(b) for a, b in zip(losses, expected[model], strict=True))
        record[name] = {"cpu": expected[model], "gpu": losses, "off": off, "done": done, "ready": ready}
        where = ready.get("device")
        if where != args.device:
            say(name, f"FAILED it was asked for {args.device} and trained on {where}")
        elif not off <= limit:  # so written that a NaN fails
            say(name, f"FAILED losses differ from the CPU's by {off:.1e}, at most {limit:.0e} is due")
        else:
            say(name, f"ok, losses differ from the CPU's by {off:.1e} (at most {limit:.0e})")


def check_out_of_memory(folder):
    """One line that names memory, and status 1: no panic, no list of frames."""
    name = "out-of-memory"
    try:
        _, _, done = train(folder, HUGE_MODEL, args.huge_pairs, args.device, "bf16", 1)
        return say(name, f"skipped: {args.huge_pairs} pairs fit into {done['peakBytes'] / 2**30:.0f} GiB")
    except SideError as error:
        seen = str(error)
    text = (args.out / f"{HUGE_MODEL}-bf16-{args.device.replace(':', '')}.log").read_text()
    lines = [line for line in text.splitlines() if line.strip()]
    record[name] = {"stderr": lines[:50]}
    print("\n".join(f"    {line}" for line in lines[:10]))
    wrong = []
    if "ended with status 1:" not in seen:
        wrong.append(f"status 1 is due: {seen.split(':')[0]}")
    for part in ("out of memory on", "pairs", "at its peak", "would have fitted"):
        if part not in (lines[-1] if lines else ""):
            wrong.append(f"the last line does not say {part!r}")
    if "panicked" in text:
        wrong.append("it panicked")
    say(name, f"FAILED {'; '.join(wrong)}" if wrong else "ok")


def gang(name, command, options_of, stdin="", ranks=2, dies=None):
    """What each rank says on stdout, as JSON lines; they meet on a free port. Rank `dies` is killed meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gpus = [name for name in by_name if name.startswith("cuda:")] if args.device != "cpu" else []
    environment = dict(os.environ)
    if 0 < len(gpus) < ranks:
        environment["NCCL_MULTI_RANK_GPU_ENABLE"] = "1"
    started = []
    for rank in range(ranks):
        device = gpus[rank % len(gpus)] if gpus else "cpu"
        seat = ["--rank", rank, "--ranks", ranks, "--meet", f"127.0.0.1:{port}/check", "--device", device]
        line = [*program, command, *map(str, [*seat, *options_of(device)])]
        started.append(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment))
    told, ends = [], []
    try:
        with concurrent.futures.ThreadPoolExecutor(ranks) as pool:
            ends = list(pool.map(lambda process: process.communicate(stdin, timeout=300), started))
    finally:
        for process in started:
            process.kill()
    for rank, (process, (out, err)) in enumerate(zip(started, ends, strict=True)):
        (args.out / f"{name}-rank-{rank}.log").write_text(err)
        if process.returncode != (-9 if rank == dies else 0):
            raise SideError(f"rank {rank} of {ranks} ended with {process.returncode}: {(err.strip().splitlines() or ['no word'])[-1]}")
        told.append([json.loads(line) for line in out.splitlines() if line.strip()])
    return told


# In a process of its own, which gives all it took of the GPUs back.
LINK = """
import json, statistics, time, torch
count = torch.cuda.device_count()
source = torch.empty(256 << 20, dtype=torch.uint8, device="cuda:0")
target = torch.empty(256 << 20, dtype=torch.uint8, device=f"cuda:{min(1, count - 1)}")
def synchronize():
    torch.cuda.synchronize(source.device), torch.cuda.synchronize(target.device)
took = []
for _ in range(11):
    synchronize()
    begun = time.perf_counter()
    target.copy_(source)
    synchronize()
    took.append(time.perf_counter() - begun)
print(json.dumps([source.numel() / statistics.median(took[1:]) / 1e9, "between two GPUs" if count > 1 else "within the GPU"]))
"""


def link():
    """Gigabytes per second of a copy between two GPUs, or within the one there is, and which; none, and why."""
    done = subprocess.run([sys.executable, "-c", LINK], capture_output=True, text=True, timeout=120)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no word"])[-1]
    most, where = json.loads(done.stdout)
    return most, f"a copy {where}"


def check_exchange():
    """Sums and gathers of 2, 3, 4 and 8 ranks, and the bandwidth of two beside the link's."""
    for ranks in (2, 3, 4, 8):
        name = f"gang-exchange-{ranks}"
        try:
            told = gang(name, "check-gang", lambda _: [] if ranks == 2 else ["--mebibytes", 16, "--rounds", 3], ranks=ranks)
        except (SideError, subprocess.TimeoutExpired, ValueError) as error:
            say(name, f"FAILED {error}")
            continue
        (together, found), record[name] = told[0], {"told": told}
        if args.device != "cpu" and not found["onDevice"]:
            say(name, f"FAILED tensors go {together['exchange']}")
            continue
        rate = found["gigabytesPerSecond"]
        say(name, f"ok, {together['exchange']}; sums of {found['bytes'] >> 20} MiB at {rate:.1f} GB/s a link and direction")
        if ranks == 2 and args.device != "cpu":
            most, what = link()
            record["gang-bandwidth"] = {"sum": rate, "link": most, "what": what}
            say("gang-bandwidth", f"skipped: {what}" if most is None else f"ok, {rate:.1f} GB/s of {most:.1f} GB/s, {what}: {rate / most:.0%}")


def check_faults():
    """A rank that dies, and one that stands still, are noticed by all others."""
    for fault in ("dies", "stalls"):
        name = f"gang-{fault}"
        try:
            told = gang(name, "check-gang", lambda _: ["--fault", fault], ranks=3, dies=2 if fault == "dies" else None)
        except (SideError, subprocess.TimeoutExpired, ValueError) as error:
            say(name, f"FAILED {error}")
            continue
        record[name] = {"told": told}
        say(name, f"ok, noticed after {max(lines[1]['seconds'] for lines in told[:2]):.2f} s: {told[0][1]['error']}")


def check_gang(folder):
    """Two ranks train as one does on the CPU."""
    # The large one has several gradient buckets.
    gangs = [("gang-small-f32", "small", 128, 12), *([("gang-b32-f32", "ViT-B-32", 16, 6)] if args.device != "cpu" else [])]
    for name, model, pairs, steps in gangs:
        own = ["--model", folder / model, "--batches", folder / f"{model}-{pairs}.safetensors", "--precision", "f32", "--threads", args.threads]
        try:
            expected = train(folder, model, pairs, "cpu", "f32", steps)[1]
            told = gang(name, "bench", lambda _: [*own, "--micro-batch", pairs // 2, "--learning-rate", RATES[model], "--weight-decay", 0.2], f"{steps}\n")
        except (SideError, subprocess.TimeoutExpired, ValueError) as error:
            say(name, f"FAILED {error}")
            continue
        losses, limit = [[line["loss"] for line in lines if "loss" in line] for lines in told], 1e-3
        record[name] = {"cpu": expected, "ranks": losses}
        if losses[0] != losses[1] or len(losses[0]) != steps:
            say(name, f"FAILED the ranks tell different losses: {losses}")
            continue
        off = max(abs(a - b) / abs(b) for a, b in zip(losses[0], expected, strict=True))
        verdict = "ok" if off <= limit else "FAILED"
        say(name, f"{verdict}, losses of two ranks differ from one on the CPU by {off:.1e} (at most {limit:.0e})")


by_name = devices()
if args.device != "cpu" and args.device not in (by_name or {}):
    why = f"there is no {args.device}"
    for name in [*(it[0] for it in TRAININGS), *GANGS, "out-of-memory"]:
        say(name, f"skipped: {why}" if by_name is not None else "skipped: no device is known")
else:
    with tempfile.TemporaryDirectory(prefix="clade-check-") as folder:
        check_training(pathlib.Path(folder))
        check_exchange()
        check_faults()
        check_gang(pathlib.Path(folder))
        if args.device == "cpu":
            say("out-of-memory", "skipped: it is of GPUs")
        else:
            check_out_of_memory(pathlib.Path(folder))
(args.out / "check.json").write_text(json.dumps(record, indent=1) + "\n")
sys.exit(1 if failures else 0)
