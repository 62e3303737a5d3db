"""The peer of Clade's loader: webdataset, Pillow and torchvision in a DataLoader, as open_clip's own data loading is put together.

    data_peer.py loader  --tars 'GLOB' [--batch 256] [--size 224] [--threads 2] [--batches 8] [--float] [--collate dataset]
    data_peer.py profile --tars 'GLOB' [--pictures 400]

`loader` hands over u8 pictures, which spares it the conversion and normalisation that open_clip adds; `--float` adds them. It
shuffles tars, and no pairs within them. One batch of each worker is had before the clock starts. `profile` says what one
picture costs on one core, step by step. The last line is a JSON object.
"""

import argparse
import glob
import io
import json
import os
import pathlib
import sys
import tarfile
import time
import warnings

import PIL
import torch
import torchvision
import webdataset
from PIL import Image, features
from torchvision.transforms import Compose, InterpolationMode, Normalize, PILToTensor, RandomResizedCrop, ToTensor
from torchvision.transforms.functional import resized_crop

from inputs import MEAN, STD

TICKS = os.sysconf("SC_CLK_TCK")
CROP = {"scale": (0.9, 1.0), "interpolation": InterpolationMode.BICUBIC, "antialias": True}
# webdataset opens its files without `with`; that they are closed late is no concern here.
warnings.filterwarnings("ignore", category=ResourceWarning)


def transform(size, as_float):
    crop = RandomResizedCrop(size, **CROP)
    return Compose([crop, ToTensor(), Normalize(MEAN, STD)]) if as_float else Compose([crop, PILToTensor()])


def make_loader(args):
    urls = sorted(glob.glob(args.tars))
    if len(urls) < args.threads:
        sys.exit(f"data_peer: {len(urls)} tars match {args.tars}, which is too few for {args.threads} workers")
    pairs = webdataset.WebDataset(urls, shardshuffle=len(urls), repeat=True, seed=args.seed)
    pairs = pairs.decode("pilrgb").to_tuple("jpg", "txt").map_tuple(transform(args.size, args.float), lambda text: text)
    if args.collate == "dataset":  # as open_clip does it
        return webdataset.WebLoader(pairs.batched(args.batch, partial=False), batch_size=None, num_workers=args.threads)
    # torch's own, which collates straight into shared memory: no slower.
    return webdataset.WebLoader(pairs, batch_size=args.batch, num_workers=args.threads, drop_last=True)


def children():
    return [int(it) for task in pathlib.Path("/proc/self/task").iterdir() for it in (task / "children").read_text().split()]


def cpu_seconds():
    """Of this process and its workers."""
    stats = (pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in [os.getpid(), *children()])
    return sum(int(it[11]) + int(it[12]) for it in stats) / TICKS


def peak_rss_mb():
    """The sum of all processes' peaks, what they share counted in each."""
    lines = (line for pid in [os.getpid(), *children()] for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def load(args):
    """Times `batches`, a multiple of the workers: from one moment when each has begun a batch to another such moment."""
    if args.batches % args.threads:
        sys.exit(f"data_peer: --batches {args.batches} is no multiple of {args.threads} workers, which favours one side")
    batches = iter(make_loader(args))
    next(batches)
    cpu, start = cpu_seconds(), time.perf_counter()
    pictures = 0
    for _ in range(args.batches):
        images, texts = next(batches)
        assert images.shape[1:] == (3, args.size, args.size) and len(images) == len(texts)
        pictures += len(images)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    return {
        "pictures": pictures, "seconds": seconds, "cpu_seconds": cpu, "masked": 0, "peak_rss_mb": peak_rss_mb(),
        "dtype": str(images.dtype), "versions": versions(),
    }


def versions():
    jpeg = features.version("libjpeg_turbo")
    return {
        "webdataset": webdataset.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__,
        "pillow": PIL.__version__, "libjpeg": f"turbo {jpeg}" if jpeg else features.version("jpg"),
    }


def profile(args):
    """Milliseconds of processor time of one picture, by step, as a worker runs them: the least of three passes."""
    torch.set_num_threads(1)
    with tarfile.open(sorted(glob.glob(args.tars))[0]) as tar:
        jpegs = [tar.extractfile(it).read() for it in tar if it.name.endswith(".jpg")][: args.pictures]
    crop, steps, passes = RandomResizedCrop(args.size, **CROP), {}, 3

    def timed(name, function, values):
        found = []
        for _ in range(passes):
            start = time.process_time()
            out = [function(it) for it in values]
            found.append((time.process_time() - start) / len(jpegs) * 1000)
        steps[name] = min(found)
        return out

    def opened(jpeg):
        picture = Image.open(io.BytesIO(jpeg))
        picture.load()
        return picture

    pictures = timed("decode", opened, jpegs)
    rgb = timed("convertTwice", lambda it: it.convert("RGB").convert("RGB"), pictures)  # as webdataset does
    crops = timed("cropAndResize", crop, rgb)
    tensors = timed("toTensor", PILToTensor(), crops)
    timed("collate", torch.utils.data.default_collate, [tensors])
    timed("toFloatAndNormalize", Compose([ToTensor(), Normalize(MEAN, STD)]), crops)
    urls = sorted(glob.glob(args.tars))[:1]
    plain = webdataset.WebDataset(urls, shardshuffle=False)
    timed("tarAndText", lambda it: sum(len(pair) for pair in it.decode(only=["txt", "json"]).slice(len(jpegs))), [plain])
    pixels = sum(it.width * it.height for it in rgb)
    return {
        "milliseconds": steps, "pictures": len(jpegs), "decodeNanosecondsPerPixel": steps["decode"] * 1e6 * len(jpegs) / pixels,
        "bitsPerPixel": sum(map(len, jpegs)) * 8 / pixels, "versions": versions(),
    }


def compare(args):
    """Says how Clade's exact and fast pictures differ from each other, and from torchvision's of the same boxes."""
    import numpy as np
    from safetensors import safe_open

    with safe_open(args.file, framework="np") as file:
        exact, fast, boxes = (file.get_tensor(name) for name in ("exact", "fast", "boxes"))
        keys = json.loads(file.metadata()["keys"])
    jpegs, wanted = {}, set(keys)
    for path in sorted(glob.glob(args.tars)):
        with tarfile.open(path) as tar:
            entries = (it for it in tar if it.name.endswith(".jpg") and pathlib.Path(it.name).stem in wanted)
            jpegs |= {pathlib.Path(it.name).stem: tar.extractfile(it).read() for it in entries}
        if len(jpegs) == len(wanted):
            break
    peer = np.stack([
        np.asarray(resized_crop(Image.open(io.BytesIO(jpegs[key])).convert("RGB"), top, left, height, width, exact.shape[2:], CROP["interpolation"], True))
        for key, (left, top, width, height) in zip(keys, boxes.tolist(), strict=True)
    ]).transpose(0, 3, 1, 2)

    def apart(a, b):
        off = np.abs(a.astype(np.int16) - b)
        square = (off.astype(np.float64) ** 2).mean()
        return {"mean": off.mean().item(), "largest": off.max().item(), "psnr": 10 * np.log10(255**2 / square).item() if square else None}

    return {"pairs": len(keys), "fastAndExact": apart(fast, exact), "exactAndPeer": apart(exact, peer), "fastAndPeer": apart(fast, peer)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["loader", "profile", "compare"])
    parser.add_argument("--tars", required=True)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--float", action="store_true", help="convert and normalise too, as open_clip does")
    parser.add_argument("--collate", choices=["loader", "dataset"], default="loader")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--file", help="what `clade-worker bench-data pixels` wrote")
    args = parser.parse_args()
    print(json.dumps({"loader": load, "profile": profile, "compare": compare}[args.what](args)), flush=True)


if __name__ == "__main__":
    main()
