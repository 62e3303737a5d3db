"""Pictures per second of Clade's loader and of the peer's, by turns, and how far the pictures are apart."""

import statistics

from data_process import RunError, link, make_warm, run, script

# Each side takes tars of its own for each worker; so many hold a round of pictures and more.
TARS = 4


def measure_loader(bench, kind):
    """Rounds of `batches` batches by each side on the same tars in the page cache; each round is a process of its own."""
    args = bench.args
    folder = bench.scratch / f"loader-{kind}"
    tars = link(bench.tars(kind)[:TARS], folder)
    make_warm(folder)
    options = ["--tars", tars, "--batch", args.batch, "--size", args.size, "--threads", args.threads, "--batches", args.batches]
    sides = ["peer"] + ["clade"] * (bench.why_no_clade is None) + ["peer-float"] * args.peer_float
    rounds = {side: [] for side in sides}
    for turn in range(args.rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):
            if side == "clade":
                done = run("clade", [args.clade, "bench-data", "loader", *options], bench.log)
            else:
                done = script("data_peer.py", bench.log, "loader", *options, *["--float"] * (side == "peer-float"))
            if done["pictures"] != args.batches * args.batch or done.get("masked") or done["seconds"] > done["seen"]["wall_seconds"]:
                raise RunError(side, f"said {done} of {args.batches} batches of {args.batch}")
            rounds[side].append({**done, "rate": done["pictures"] / done["seconds"], "cpu_ms": done["cpu_seconds"] / done["pictures"] * 1000})
    rates = {side: statistics.median(it["rate"] for it in found) for side, found in rounds.items()}
    result = {"kind": kind, "rounds": rounds, "picturesPerSecond": rates}
    if "clade" in rounds:
        ratios = [clade["rate"] / peer["rate"] for clade, peer in zip(rounds["clade"], rounds["peer"], strict=True)]
        cost = {side: statistics.median(it["cpu_ms"] for it in found) for side, found in rounds.items()}
        result |= {"ratio": rates["clade"] / rates["peer"], "ratios": ratios, "cpuRatio": cost["peer"] / cost["clade"]}
    show_loader(result, args)
    return result


def show_loader(result, args):
    versions = result["rounds"]["peer"][0]["versions"]
    print(f"\nloader, pictures of about {result['kind']}, batch {args.batch}, to {args.size}x{args.size}, {args.threads} workers, page cache warm; {args.rounds} rounds of {args.batches} batches")
    print("  peer: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    print("              pictures/s     min ..      max  CPU ms a picture   peak MB")
    for side, rounds in result["rounds"].items():
        rates = [it["rate"] for it in rounds]
        cpu, memory = statistics.median(it["cpu_ms"] for it in rounds), max(it["peak_rss_mb"] for it in rounds)
        print(f"  {side:<11} {result['picturesPerSecond'][side]:>10.1f} {min(rates):>7.1f} .. {max(rates):>8.1f} {cpu:>17.2f} {memory:>9.0f}")
    if "ratio" in result:
        print(f"  ratio       {result['ratio']:.2f} x of pictures/s ({min(result['ratios']):.2f} .. {max(result['ratios']):.2f}), {result['cpuRatio']:.2f} x per CPU second")


def measure_pixels(bench, kind):
    """Lets Clade write the same crops decoded in full and decoded small, and compares them with Pillow's and torchvision's."""
    tars = link(bench.tars(kind)[:1], bench.scratch / f"pixels-{kind}")
    out = bench.scratch / f"pixels-{kind}.safetensors"
    run("clade", [bench.args.clade, "bench-data", "pixels", "--tars", tars, "--size", bench.args.size, "--pairs", 64, "--out", out], bench.log)
    found = script("data_peer.py", bench.log, "compare", "--tars", tars, "--file", out)
    print(f"\npixels of {found['pairs']} crops of pictures of about {kind}, in levels of 256")
    for name, label in [("fastAndExact", "scaled and full decoding"), ("exactAndPeer", "full decoding and torchvision"), ("fastAndPeer", "scaled decoding and torchvision")]:
        off = found[name]
        psnr = "equal" if off["psnr"] is None else f"{off['psnr']:.1f} dB"
        print(f"  {label:<32} differ by {off['mean']:.3f} in the mean, {off['largest']} at most: {psnr}")
    return {"kind": kind, **found}
