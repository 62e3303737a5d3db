"""Index and shard jobs: beside `cp` of the same bytes, and as the data grow."""

import shutil
import statistics

from data_process import RunError, copy, link, make_cold, make_warm, may_drop_caches, run, size_of

STAGES = ("index", "shard")
# Times the base; memory is compared between the first and the third.
FACTORS = (1, 2, 4, 8)


def stage(bench, name, tars, into, pairs, input_bytes):
    """One stage in a process of its own; `shard` goes on in the folder that `index` has left."""
    command = [bench.args.clade, "bench-data", "rewrite", "--tars", tars, "--into", into, "--experts", bench.args.experts, "--only", name]
    said = run("clade", command, bench.log)
    done, seen = said[name], said["seen"]
    if said["pairs"] != pairs or said["input_bytes"] != input_bytes or done["seconds"] > seen["wall_seconds"]:
        raise RunError("clade", f"said {said} of {pairs} pairs in {input_bytes} bytes")
    written = size_of(into)
    if name == "shard" and not input_bytes * 0.5 < done["output_bytes"] <= written:
        raise RunError("clade", f"said that it wrote {done['output_bytes']} of {input_bytes} bytes, and {written} are there")
    # The larger of what it says and what was seen: neither can hide memory.
    return {**done, "peak_rss_mb": max(done["peak_rss_mb"], seen["peak_rss_mb"]), "wall_seconds": seen["wall_seconds"], "written": written}


def measure_rewrite(bench, kind):
    """Takes turns with `cp`, each from a cold cache until its output is on the disk."""
    args, source = bench.args, bench.folder / kind
    pairs, size = bench.made[kind]["pairs"], bench.made[kind]["bytes"]
    has_clade = bench.why_no_clade is None
    rounds = {"cp": [], **({name: [] for name in STAGES} if has_clade else {})}
    into, copied = bench.scratch / "rewritten", bench.scratch / "copied"

    def by_cp():
        make_cold(source)
        rounds["cp"].append(copy(source, copied))
        shutil.rmtree(copied)

    def by_clade():
        for name in STAGES if has_clade else ():
            make_cold(bench.folder)  # the index's output too, which the shard jobs read
            rounds[name].append(stage(bench, name, f"{source}/*.tar", into, pairs, size))
        shutil.rmtree(into, ignore_errors=True)

    for turn in range(args.disk_rounds):
        for side in (by_cp, by_clade) if turn % 2 == 0 else (by_clade, by_cp):
            side()
    rates = {name: [size / it["seconds"] / 1e6 for it in found] for name, found in rounds.items()}
    medians = {name: statistics.median(it) for name, it in rates.items()}
    result = {"kind": kind, "pairs": pairs, "bytes": size, "rounds": rounds, "megabytesPerSecond": medians}
    if has_clade:
        result["ofCp"] = {name: 100 * medians[name] / medians["cp"] for name in STAGES}
        result["ofCpRounds"] = {name: [100 * a / b for a, b in zip(rates[name], rates["cp"], strict=True)] for name in STAGES}
        result["peakMb"] = {name: max(it["peak_rss_mb"] for it in rounds[name]) for name in STAGES}
    show_rewrite(result, rates, args)
    return result


def show_rewrite(result, rates, args):
    how = "drop_caches" if may_drop_caches() else "posix_fadvise"
    print(f"\nindex and shard beside cp: {result['pairs']} pairs in {result['bytes'] / 1e9:.2f} GB, cold cache ({how}), output synced; {args.disk_rounds} rounds")
    print("           MB/s of input     min ..     max   CPU s a GB   of cp               peak MB")
    for name, rounds in result["rounds"].items():
        cpu = statistics.median(it["cpu_seconds"] for it in rounds) / result["bytes"] * 1e9
        line = f"  {name:<8} {result['megabytesPerSecond'][name]:>13.1f} {min(rates[name]):>7.1f} .. {max(rates[name]):>7.1f} {cpu:>12.2f}"
        if name != "cp":
            of = result["ofCpRounds"][name]
            line += f"   {result['ofCp'][name]:.1f} % ({min(of):.1f} .. {max(of):.1f}) {result['peakMb'][name]:>7.0f}"
        print(line)
    size = result["bytes"]
    floor = {"cp": (size, size)}
    if "ofCp" in result:
        index, shard = result["rounds"]["index"][0], result["rounds"]["shard"][0]
        floor |= {"index": (size, index["written"]), "shard": (size, shard["output_bytes"])}
    print("  floor    " + "; ".join(f"{name} reads {a / 1e9:.3f} GB and writes {b / 1e9:.3f} GB" for name, (a, b) in floor.items()))


def measure_growth(bench, kind, base):
    """Both stages on 1, 2, 4 and 8 times `base` pairs: whether a pair's time and the peak memory stay as they are."""
    tars = bench.tars(kind)
    sizes = {factor: tars[: len(tars) * factor // FACTORS[-1]] for factor in FACTORS}
    rounds = {name: {factor: [] for factor in FACTORS} for name in STAGES}
    into = bench.scratch / "grown"
    for turn in range(bench.args.disk_rounds):
        for factor in FACTORS if turn % 2 == 0 else reversed(FACTORS):
            folder = bench.scratch / f"growth-{factor}"
            pattern = link(sizes[factor], folder)
            make_warm(folder)
            for name in STAGES:
                rounds[name][factor].append(stage(bench, name, pattern, into, base * factor, size_of(folder)))
            shutil.rmtree(into)
    result = {"kind": kind, "base": base, "rounds": rounds, "microsecondsPerPair": {}, "growth": {}, "peakMb": {}, "memoryGrowth": {}}
    print(f"\ngrowth: {base} pairs of pictures of about {kind}, times {', '.join(map(str, FACTORS))}; page cache warm, output synced; medians of {bench.args.disk_rounds} rounds")
    for name in STAGES:
        times = {f: statistics.median(it["seconds"] for it in rounds[name][f]) / (base * f) * 1e6 for f in FACTORS}
        peaks = {f: statistics.median(it["peak_rss_mb"] for it in rounds[name][f]) for f in FACTORS}
        result["microsecondsPerPair"][name], result["peakMb"][name] = times, peaks
        result["growth"][name] = max(times.values()) / min(times.values())
        # Over 100,000 pairs at the usual base of 25,000.
        result["memoryGrowth"][name] = peaks[4] / peaks[1]
        print(f"  {name:<6} us a pair " + ", ".join(f"{it:.2f}" for it in times.values()) + f": {result['growth'][name]:.3f} x between most and least")
        print("         peak MB   " + ", ".join(f"{it:.0f}" for it in peaks.values()) + f": {result['memoryGrowth'][name]:.3f} x from {base} to {base * 4} pairs")
    return result
