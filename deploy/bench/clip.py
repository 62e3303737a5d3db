"""Runs open_clip and Clade side by side, alternating, and prints how Clade compares.

    clip.py [--cases cpu|gpu|NAME,NAME...] [--rounds N] [--steps-per-round N] [--out results.json]

On a CPU both sides live through the case and take turns. On a GPU, which may not hold both, each
turn is a process of its own that starts from the same weights. Who goes first changes with each
turn. Samples/s are the median of a side's rounds; the ratio is the median of the paired ratios. A
ratio is void unless both sides' losses agree within 1e-3, step by step. Exits with 0 whatever the marks say.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

from cases import BF16_PEAKS, CASES, training_flops
from side import PEER, Side, SideError

ROOT = pathlib.Path(__file__).resolve().parents[2]
LARGEST_LOSS_DIFFERENCE = 1e-3
# A side that reports less time than it was seen to take is not believed; pipes and JSON take a little.
CLOCK_SLACK, CLOCK_SLACK_S = 1.05, 0.1


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="all", help="all, cpu, gpu, or names: " + ", ".join(it.name for it in CASES))
    parser.add_argument("--no-extras", action="store_true", help="leave out the cases that are no marks")
    parser.add_argument("--rounds", type=int, help="rounds of each side [default: by case]")
    parser.add_argument("--steps-per-round", type=int, help="[default: by case]")
    parser.add_argument("--threads", type=int, default=2, help="of either side")
    parser.add_argument("--micro-batch", type=int, help="of Clade [default: the whole batch]")
    parser.add_argument("--recompute", action="store_true", help="both sides recompute activations")
    parser.add_argument("--clade", type=pathlib.Path, default=ROOT / "target/release/clade-worker")
    parser.add_argument("--clade-options", default="", help="more options for Clade's side, as one string")
    parser.add_argument("--peer-options", default="", help="more options for open_clip_peer.py, as one string")
    parser.add_argument("--peer-env", action="append", default=[], metavar="KEY=VALUE", help="e.g. LD_PRELOAD of an allocator")
    parser.add_argument("--scratch", type=pathlib.Path, help="where models and batches are made [default: the system's]")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of all that was measured")
    return parser.parse_args()


def chosen(args):
    kinds = {"all": lambda it: True, "cpu": lambda it: it.device == "cpu", "gpu": lambda it: it.device != "cpu"}
    names = args.cases.split(",")
    unknown = [name for name in names if name not in kinds and name not in {it.name for it in CASES}]
    if unknown:
        sys.exit(f"unknown case {', '.join(unknown)}; known are {', '.join([*kinds, *(it.name for it in CASES)])}")
    picked = [it for it in CASES if it.name in names or any(kinds[name](it) for name in names if name in kinds)]
    picked = [it for it in picked if it.want is not None or not args.no_extras]
    change = {"rounds": args.rounds, "steps": args.steps_per_round}
    return [dataclasses.replace(it, **{k: v for k, v in change.items() if v}) for it in picked]


def in_child(code, *values):
    """Runs a few lines of Python that need torch in a process of their own, so that this one stays small and idle."""
    command = [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n{code}", *map(str, values)]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"cannot prepare: {(found.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(found.stdout.strip().splitlines()[-1])


def has_cuda():
    return in_child("import torch\nprint(str(torch.cuda.is_available()).lower())")


def prepare(case, folder):
    """Writes the model and the batches; returns the configuration and the captions' mean length."""
    code = """import json, pathlib, inputs
folder, model, batches, pairs, full = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "True"
config = inputs.write_model(folder / "model", model)
print(json.dumps([config, inputs.write_batches(folder / "batches.safetensors", config, batches, pairs, full)]))"""
    return in_child(code, folder, case.model, case.batches, case.pairs, case.full)


def sgemm_peak(threads):
    """FLOP/s of PyTorch's f32 matrix product on the same threads: the best of many."""
    code = """import time, torch
torch.set_num_threads(int(sys.argv[1]))
a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
best, end = float("inf"), time.perf_counter() + 4
while time.perf_counter() < end:
    start = time.perf_counter()
    a @ b
    best = min(best, time.perf_counter() - start)
print(2 * 2048**3 / best)"""
    return in_child(code, threads)


class Bench:
    """One case being measured."""

    def __init__(self, case, args, folder):
        self.case, self.args, self.folder = case, args, folder
        self.config, self.mean_length = prepare(case, folder)
        self.rounds, self.losses, self.ready, self.idle = {"peer": [], "clade": []}, {"peer": [], "clade": []}, {}, {"peer": [], "clade": []}
        self.voids = []

    def start(self, name):
        case, args = self.case, self.args
        options = [
            "--model", self.folder / "model", "--batches", self.folder / "batches.safetensors", "--device", case.device,
            "--precision", case.precision, "--threads", args.threads, "--micro-batch", args.micro_batch or case.pairs,
            "--learning-rate", case.rate, "--weight-decay", 0.2, *(["--recompute"] if args.recompute else []),
        ]
        log = self.folder / f"{name}.log"
        if name == "peer":
            options += [*(["--torchcompile"] if case.torchcompile else []), *shlex.split(args.peer_options)]
            side = Side("open_clip", PEER, options, args.threads, log, [it.split("=", 1) for it in args.peer_env])
        else:
            side = Side("clade", args.clade, [*options, *shlex.split(args.clade_options)], args.threads, log)
        self.ready[name] = side.ready
        return side

    def round(self, name, side, steps=None, others=()):
        """One round of one side; a round that is given `steps` is a warm-up and does not count."""
        idle = {other: it.cpu_seconds() for other, it in others}
        done = side.train(steps or self.case.steps)
        if done["wallSeconds"] > done["seconds"] * CLOCK_SLACK + CLOCK_SLACK_S:
            self.voids.append(f"{side.name} said {done['seconds']:.2f} s of a round that took {done['wallSeconds']:.2f} s")
        if steps is None:
            self.rounds[name].append({**done, "samplesPerSecond": self.case.pairs * self.case.steps / done["seconds"]})
            for other, it in others:
                self.idle[other].append((it.cpu_seconds() - idle[other]) / done["wallSeconds"])

    def run(self):
        """Takes turns; the order is the peer first, Clade first, and so on."""
        turns = [("peer", "clade") if turn % 2 == 0 else ("clade", "peer") for turn in range(self.case.rounds)]
        if self.case.device == "cpu":
            self.run_resident(turns)
        else:
            self.run_apart(turns)
        for peer, clade in zip(self.losses["peer"], self.losses["clade"], strict=True):
            off = max(abs(a - b) / abs(b) for a, b in zip(clade, peer, strict=True))
            # Written so that a NaN is void too.
            if not off <= LARGEST_LOSS_DIFFERENCE:
                self.voids.append(f"losses differ by {off:.1e}")

    def run_resident(self, turns):
        sides = {}
        with contextlib.ExitStack() as stack:
            for name in ("peer", "clade"):
                sides[name] = self.start(name)
                stack.callback(sides[name].close)
            for name, side in sides.items():
                self.round(name, side, self.case.warm_up)
            for order in turns:
                for name in order:
                    self.round(name, sides[name], others=[it for it in sides.items() if it[0] != name])
            self.losses = {name: [side.losses] for name, side in sides.items()}

    def run_apart(self, turns):
        for order in turns:
            for name in order:
                side = self.start(name)
                try:
                    self.round(name, side, self.case.warm_up)
                    self.round(name, side)
                    self.losses[name].append(side.losses)
                finally:
                    side.close()

    def result(self, peak):
        rates = {name: [it["samplesPerSecond"] for it in rounds] for name, rounds in self.rounds.items()}
        ratios = [clade / peer for clade, peer in zip(rates["clade"], rates["peer"], strict=True)]
        memory = {name: max(it["peakBytes"] for it in rounds) for name, rounds in self.rounds.items()}
        flops = training_flops(self.config, self.case.pairs)
        medians = {name: statistics.median(it) for name, it in rates.items()}
        pairs = [abs(a - b) / abs(b) for one, other in zip(self.losses["clade"], self.losses["peer"]) for a, b in zip(one, other)]
        return {
            "case": dataclasses.asdict(self.case), "ratio": statistics.median(ratios), "ratios": ratios, "samplesPerSecond": medians,
            "peakBytes": memory, "memoryRatio": memory["clade"] / memory["peer"], "trainingFlopsPerPair": flops,
            "achievedFlops": {name: it * flops for name, it in medians.items()}, "peakFlops": peak,
            "largestLossDifference": max(pairs), "voids": self.voids, "losses": self.losses, "rounds": self.rounds,
            "idleShare": self.idle, "ready": self.ready, "meanCaptionLength": self.mean_length,
        }


def show(result):
    case = result["case"]
    steps = case["warm_up"] + case["rounds"] * case["steps"] if case["device"] == "cpu" else case["warm_up"] + case["steps"]
    captions = f"captions of {result['meanCaptionLength']:.1f} tokens in {'all' if case['full'] else 'the mean'}"
    print(f"\n{case['name']}: {case['model']}, batch {case['pairs']}, {case['precision']}, {case['device']}, {captions}; {case['rounds']} rounds of {case['steps']} steps")
    ready = result["ready"]["peer"]
    print(f"  open_clip {ready['openClip']}, torch {ready['torch']}, {ready['deviceName']}, AdamW {ready['optimizer']}" + (", compiled" if case["torchcompile"] else ""))
    print("               samples/s     min ..      max   peak MiB   GFLOP/s  of the device's peak")
    for name, label in [("peer", "open_clip"), ("clade", "clade")]:
        rates = [it["samplesPerSecond"] for it in result["rounds"][name]]
        achieved = result["achievedFlops"][name]
        share = f"{achieved / result['peakFlops']:.1%}" if result["peakFlops"] else "unknown"
        print(f"  {label:<10} {result['samplesPerSecond'][name]:>11.2f} {min(rates):>7.2f} .. {max(rates):>8.2f} {result['peakBytes'][name] / 2**20:>10.0f} {achieved / 1e9:>9.1f}  {share}")
    print(f"  ratio      {result['ratio']:.3f} x of samples/s ({min(result['ratios']):.3f} .. {max(result['ratios']):.3f}), {result['memoryRatio']:.3f} x of peak memory")
    losses, cycle = result["losses"]["peer"][0], case["batches"]
    fell = statistics.mean(losses[:cycle]) - statistics.mean(losses[-cycle:])
    print(f"  losses     {losses[0]:.4f} .. {losses[-1]:.4f} in {steps} steps, {'fell' if fell > 0 else 'rose'} by {abs(fell):.4f}; differ by at most {result['largestLossDifference']:.1e}")
    for name, shares in result["idleShare"].items():
        if shares and statistics.median(shares) > 0.02:
            print(f"  note: while it waited, {name} kept {statistics.median(shares):.0%} of a processor busy")
    for why in dict.fromkeys(result["voids"]):
        print(f"  VOID: {why}")


def mark(case, value=None, verdict=None):
    number = "-" if value is None else f"{value:.3f}"
    return f"mark {case.name} {number} x want >= {case.want}: {verdict}"


def judge(case, result):
    """The case's last line."""
    voids = list(dict.fromkeys(result["voids"]))
    more = f", and {len(voids) - 1} more" if len(voids) > 1 else ""
    void = f" (void: {voids[0]}{more})" if voids else ""
    if case.want is None:
        return f"extra {case.name} {result['ratio']:.3f} x{void}"
    met = not voids and result["ratio"] >= case.want
    return mark(case, result["ratio"], ("met" if met else "short") + void)


def main():
    args = arguments()
    picked, lines, results = chosen(args), [], []
    skip = None
    if not os.access(args.clade, os.X_OK) and args.clade.suffix != ".py":
        skip = f"there is no {args.clade.name} at {args.clade.parent}: run `make build`, or give --clade"
    cuda, sgemm = None, None
    for case in picked:
        why = skip
        if why is None and case.device != "cpu":
            cuda = has_cuda() if cuda is None else cuda
            why = None if cuda else "no CUDA device"
        if why:
            lines.append(mark(case, verdict=f"skipped: {why}") if case.want is not None else f"extra {case.name} skipped: {why}")
            continue
        with tempfile.TemporaryDirectory(prefix="clade-bench-", dir=args.scratch) as folder:
            try:
                bench = Bench(case, args, pathlib.Path(folder))
                bench.run()
            except SideError as error:
                blame = "short" if str(error).startswith("clade") else "skipped:"
                text = f"{blame} ({error})" if blame == "short" else f"{blame} {error}"
                print(f"\n{case.name}: {error}", flush=True)
                lines.append(mark(case, verdict=text) if case.want is not None else f"extra {case.name} {text}")
                continue
        if case.device == "cpu":
            sgemm = sgemm_peak(args.threads) if sgemm is None else sgemm
            peak = sgemm
        else:
            name = bench.ready["peer"]["deviceName"]
            peak = next((it * 1e12 for part, it in BF16_PEAKS if part in name), None)
        result = bench.result(peak)
        show(result)
        results.append(result)
        lines.append(judge(case, result))
        sys.stdout.flush()
        if args.out:  # after each case, so that a run cut short leaves what it has
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps({"results": results, "lines": lines}, indent=1) + "\n")
    lines += [mark(it, verdict="skipped: it was not asked for") for it in CASES if it.want is not None and it.name not in {case.name for case in picked}]
    print()
    # Marks last, so that whoever reads only the end reads them.
    print("\n".join(sorted(lines, key=lambda line: line.startswith("mark "))))


main()
