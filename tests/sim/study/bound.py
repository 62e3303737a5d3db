"""Least makespan of rigid gangs, for traces that `clade-sim study --dump FILE` has played.

A gang may sit on any free GPUs, so the fleet is one bag of them. At each moment some gangs run together whose
widths fit: of each width a number, a *configuration*. Whatever a plan does, its makespan is the time it spends
in each configuration, added up; and of each width any m gangs are served by min(number, m) at a time, so their
lengths must not be more than that adds up to. The least makespan under these conditions is a linear program.
Gangs may stop and go on at any time and for nothing in it, and it knows all lengths: no scheduler is below it, and
with few stops a plan comes near.

Each bound is taken from the dual solution and held against every configuration here: it does not rest on the
solver. With `--check` instead of a file it compares itself with the program over all sets of gangs, on small traces.
It needs `scipy`: `python3 -m venv V && V/bin/pip install scipy==1.17.1 && V/bin/python bound.py FILE`.
"""

import itertools
import json
import random
import statistics
import sys

import numpy
from scipy.optimize import linprog

MARK = 1.1


def configurations(widths, counts, gpus):
    """All numbers of gangs by width that fit together and to which no gang can be added."""
    found = []

    def extend(chosen, free):
        at = len(chosen)
        if at == len(widths):
            is_full = all(n == most or width > free for n, most, width in zip(chosen, counts, widths))
            if is_full:
                found.append(tuple(chosen))
            return
        for number in range(min(counts[at], free // widths[at]) + 1):
            extend([*chosen, number], free - number * widths[at])

    extend([], gpus)
    return found


def least(gangs, gpus):
    """A lower bound of the makespan of (width, length) on so many GPUs."""
    by_width = {}
    for width, length in gangs:
        by_width.setdefault(width, []).append(length)
    widths = sorted(by_width)
    lengths = [sorted(by_width[width], reverse=True) for width in widths]
    all_configurations = numpy.array(configurations(widths, [len(it) for it in lengths], gpus))
    rows, needs = [], []
    for at, those in enumerate(lengths):
        for most in range(1, len(those) + 1):
            rows.append(numpy.minimum(all_configurations[:, at], most))
            needs.append(sum(those[:most]))
    rows, needs = numpy.array(rows, dtype=float), numpy.array(needs, dtype=float)
    unit = needs.max()
    solved = linprog(numpy.ones(rows.shape[1]), A_ub=-rows, b_ub=-needs / unit, method="highs")
    if solved.status != 0:
        sys.exit(f"no solution: {solved.message}")
    prices = numpy.maximum(-solved.ineqlin.marginals, 0.0)
    # No configuration may earn more than the time it takes.
    bound = prices @ needs / max(1.0, (prices @ rows).max())
    if bound < 0.999 * solved.fun * unit:
        sys.exit(f"the dual solution is bad: {bound} of {solved.fun * unit}")
    return bound


def check():
    """Compares with the program that has a time for each set of distinct gangs."""
    for seed in range(200):
        draw = random.Random(seed)
        gpus, count = draw.choice([4, 6, 8]), draw.randint(2, 8)
        gangs = [(draw.choice([1, 2, 3, 4]), draw.uniform(1, 10)) for _ in range(count)]
        sets = [them for size in range(count) for them in itertools.combinations(range(count), size + 1)]
        sets = [them for them in sets if sum(gangs[it][0] for it in them) <= gpus]
        rows = [[-float(at in them) for them in sets] for at in range(count)]
        needs = [-length for _, length in gangs]
        whole = linprog(numpy.ones(len(sets)), A_ub=rows, b_ub=needs, method="highs").fun
        if abs(least(gangs, gpus) - whole) > 1e-6 * whole:
            sys.exit(f"seed {seed}: {least(gangs, gpus)} is not {whole}: {gangs} on {gpus}")
    print("200 small traces: the same as over all sets of gangs")


def main(path):
    kinds = {}
    for line in open(path, encoding="utf-8"):
        trace = json.loads(line)
        gangs = [(it["width"], it["least_ms"]) for it in trace["gangs"]]
        bare = least([(it["width"], it["steps_ms"]) for it in trace["gangs"]], trace["gpus"])
        trace["least"], simple = least(gangs, trace["gpus"]), trace["simple_ms"]
        # Of three kinds of bound, one below another that includes it would be a mistake here.
        if not simple <= bare * 1.000001 <= trace["least"] * 1.000002 <= trace["took_ms"] * 1.000003:
            sys.exit(f"seed {trace['seed']}: {simple} {bare} {trace['least']} {trace['took_ms']}")
        kinds.setdefault(trace["kind"], []).append(trace)
    for kind, traces in kinds.items():
        simple = [it["took_ms"] / it["simple_ms"] for it in traces]
        best = sorted(it["took_ms"] / it["least"] for it in traces)
        above = [it for it in traces if it["took_ms"] > MARK * it["simple_ms"]]
        out_of_reach = [it for it in above if it["least"] > MARK * it["simple_ms"]]
        short = [it for it in traces if it["took_ms"] > MARK * it["least"]]
        print(
            f"{kind}: {len(traces)} traces; of the simple bound: median {statistics.median(simple):.3f}, worst "
            f"{max(simple):.3f}, {len(above)} above {MARK}, {len(out_of_reach)} of them where no plan is below"
        )
        ninety = best[min(len(best) * 9 // 10, len(best) - 1)]
        print(
            f"  of the least makespan: median {statistics.median(best):.3f}, 90 of 100 below {ninety:.3f}, worst "
            f"{best[-1]:.3f}, {len(short)} above {MARK}"
        )
        for it in sorted(above + [it for it in short if it not in above], key=lambda it: -it["took_ms"] / it["least"]):
            widths = sorted(gang["width"] for gang in it["gangs"])
            widths = ", ".join(f"{widths.count(width)} of {width}" for width in sorted(set(widths)))
            print(
                f"    seed {it['seed']}: {it['took_ms'] / it['simple_ms']:.3f} of the simple bound, which is at "
                f"{it['least'] / it['simple_ms']:.3f} at least; {it['took_ms'] / it['least']:.3f} of that; "
                f"{it['gpus']} GPUs; {widths}"
            )


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else main(sys.argv[1])
