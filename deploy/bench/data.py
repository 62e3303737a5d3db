"""Measures Clade's data plane beside what others use, by turns, and prints how it compares.

    data.py [--only loader,rewrite,growth,pixels] [--peer-only] [--peer-float] [--data FOLDER] [--out results.json]

The loader runs beside webdataset, Pillow and torchvision in a DataLoader (data_peer.py); index and shard jobs run beside `cp`.
Inputs are drawn from a seed, kept in `--data` and used again (about 4.5 GB); outputs are deleted. Ratios are those of the
medians, with the least and the largest of the rounds. Exits with 0 whatever the marks say.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import signal
import sys
import tempfile

from data_loading import TARS, measure_loader, measure_pixels
from data_process import RunError, script
from data_rewriting import FACTORS, STAGES, measure_growth, measure_rewrite

ROOT = pathlib.Path(__file__).resolve().parents[2]
# By section: each mark's unit and what is wanted of it.
MARKS = {
    "loader": {"loader-500x400": ("x", ">=", 2), "loader-1000x800": ("x", ">=", 3)},
    "rewrite": {
        "index-vs-cp": ("%", ">=", 80), "shard-vs-cp": ("%", ">=", 80),
        "index-peak-memory": ("MB", "<=", 500), "shard-peak-memory": ("MB", "<=", 500),
    },
    "growth": {
        "index-growth": ("x", "<=", 1.1), "shard-growth": ("x", "<=", 1.1),
        "index-memory-growth": ("x", "<=", 1.1), "shard-memory-growth": ("x", "<=", 1.1),
    },
    "pixels": {},
}
MIDDLE, LARGE, SMALL = "500x400", "1000x800", "96x80"
# What a pair takes in a tar, headers and padding too, and the pairs of one tar.
PAIR_BYTES = {MIDDLE: 56_600, LARGE: 222_000, SMALL: 5_800}
TAR_PAIRS = {MIDDLE: 10_000, LARGE: 1_024}
SPARE_BYTES = 1_000_000_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(MARKS), help="sections, of " + ", ".join(MARKS))
    parser.add_argument("--peer-only", action="store_true", help="leave Clade out")
    parser.add_argument("--peer-float", action="store_true", help="also measure the peer with conversion and normalisation")
    parser.add_argument("--rounds", type=int, default=5, help="of each side, of the loader")
    parser.add_argument("--batches", type=int, default=8, help="of a round; a multiple of the threads")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2, help="of either loader")
    parser.add_argument("--disk-rounds", type=int, default=3, help="of index, shard and cp")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="rewritten beside cp")
    parser.add_argument("--growth-base", type=int, default=25_000, help="pairs; it grows eightfold")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clade", type=pathlib.Path, default=ROOT / "target/release/clade-worker")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data/bench", help="where inputs are kept and outputs are written")
    parser.add_argument("--delete-inputs", action="store_true", help="at the end, rather than keep them for the next time")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of all that was measured")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := [name for name in args.only if name not in MARKS]:
        sys.exit(f"unknown section {', '.join(unknown)}; known are {', '.join(MARKS)}")
    return args


class Bench:
    """Inputs, a place for outputs, and whether Clade takes part."""

    def __init__(self, args, scratch):
        self.args, self.folder, self.scratch, self.log = args, args.data.resolve(), pathlib.Path(scratch), pathlib.Path(scratch) / "log"
        self.why_no_clade = None
        if args.peer_only:
            self.why_no_clade = "--peer-only leaves Clade out"
        elif not os.access(args.clade, os.X_OK):
            self.why_no_clade = f"there is no {args.clade.name} at {args.clade.parent}: run `make build`, or give --clade"
        self.made = {}

    def kinds(self):
        """What the sections need, as data_inputs.py reads it."""
        only = set(self.args.only)
        tars = max(TARS, math.ceil(self.args.gigabytes * 1e9 / PAIR_BYTES[MIDDLE] / TAR_PAIRS[MIDDLE])) if "rewrite" in only else TARS
        return [
            *([(MIDDLE, tars, TAR_PAIRS[MIDDLE], 256)] if only & {"loader", "rewrite", "pixels"} else []),
            *([(LARGE, TARS, TAR_PAIRS[LARGE], 128)] if only & {"loader", "pixels"} else []),
            *([(SMALL, 10 * FACTORS[-1], self.args.growth_base // 10, 256)] if "growth" in only else []),
        ]

    def prepare(self):
        kinds = self.kinds()
        sizes = [PAIR_BYTES[size] * tars * pairs for size, tars, pairs, _ in kinds]
        kept = sum(it.stat().st_size for it in self.folder.glob("*/*.tar"))
        needed, free = max(0, sum(sizes) - kept) + 1.2 * max(sizes) + SPARE_BYTES, shutil.disk_usage(self.folder).free
        if free < needed:
            sys.exit(f"{self.folder} has room for {free / 1e9:.1f} GB, and {needed / 1e9:.1f} GB are needed: give --data another, or fewer --gigabytes")
        print(f"inputs in {self.folder}, seed {self.args.seed}", flush=True)
        self.made = script("data_inputs.py", self.log, self.folder, *(f"{it[0]}:{':'.join(map(str, it))}" for it in kinds), "--seed", self.args.seed)
        for name, *_ in kinds:
            it = self.made[name]
            print(f"  about {name:<9} {it['pairs']:>7} pairs in {it['tars']} tars, {it['bytes'] / 1e9:.2f} GB; {it['pictureBytes'] / 1000:.1f} KB a picture, {it['bitsPerPixel']:.2f} bits a pixel; {it['distinct']} distinct")

    def tars(self, kind):
        return sorted((self.folder / kind).glob("*.tar"))

    def measure(self, section):
        """Yields what was measured, and the values of its marks."""
        if section == "loader":
            for kind in (MIDDLE, LARGE):
                found = measure_loader(self, kind)
                yield found, {f"loader-{kind}": found["ratio"]} if "ratio" in found else {}
        elif section == "rewrite":
            found = measure_rewrite(self, MIDDLE)
            marks = {f"{name}-vs-cp": found["ofCp"][name] for name in STAGES} if "ofCp" in found else {}
            yield found, marks | ({f"{name}-peak-memory": found["peakMb"][name] for name in STAGES} if marks else {})
        elif self.why_no_clade is None and section == "growth":
            found = measure_growth(self, SMALL, self.args.growth_base // 10 * 10)
            growth = {f"{name}-growth": found["growth"][name] for name in STAGES}
            yield found, growth | {f"{name}-memory-growth": found["memoryGrowth"][name] for name in STAGES}
        elif self.why_no_clade is None and section == "pixels":
            for kind in (MIDDLE, LARGE):
                yield measure_pixels(self, kind), {}


def judge(name, unit, sign, want, value, why):
    """A mark's line: its value, or why there is none."""
    if value is not None:
        met = value >= want if sign == ">=" else value <= want
        return f"mark {name} {value:.3f} {unit} want {sign} {want}: {'met' if met else 'short'}"
    if why.startswith("clade: "):
        return f"mark {name} - {unit} want {sign} {want}: short ({why})"
    return f"mark {name} skipped: {why}"


def main():
    args = arguments()
    # `timeout` and Ctrl-C alike leave no outputs behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.data.mkdir(parents=True, exist_ok=True)
    lines, results = [], {"seed": args.seed, "load": os.getloadavg(), "sections": {}}
    with tempfile.TemporaryDirectory(prefix="run-", dir=args.data) as scratch:
        bench = Bench(args, scratch)
        try:
            bench.prepare()
        except RunError as error:
            sys.exit(f"cannot make the inputs: {error}")
        results["inputs"] = bench.made
        for section, marks in MARKS.items():
            values, why = {}, bench.why_no_clade or "nothing was measured"
            if section in args.only:
                try:
                    for found, more in bench.measure(section):
                        results["sections"].setdefault(section, []).append(found)
                        values |= more
                except RunError as error:
                    print(f"\n{section}: {error}", flush=True)
                    why = str(error)
            else:
                why = "it was not asked for"
            lines += [judge(name, *wanted, values.get(name), why) for name, wanted in marks.items()]
            sys.stdout.flush()
            if args.out:  # after each section, so that a run cut short leaves what it has
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps({**results, "lines": lines}, indent=1) + "\n")
    if args.delete_inputs:
        for kind in PAIR_BYTES:
            shutil.rmtree(args.data / kind, ignore_errors=True)
            (args.data / f"{kind}.json").unlink(missing_ok=True)
    print()
    # Marks last, so that whoever reads only the end reads them.
    print("\n".join(lines))


main()
