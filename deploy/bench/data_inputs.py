"""What the data plane is measured on: tars of photo-like JPEGs, as img2dataset writes them.

    data_inputs.py FOLDER KIND... [--seed N]

A KIND is `folder:WIDTHxHEIGHT:tars:pairs per tar:distinct pictures`. A few hundred distinct pictures are made per kind and
used again and again, each time under another key and with a comment of its own, so that no two files are the same bytes. A
folder that is there already with the same recipe is left as it is. Prints one JSON object: what each kind came to.
"""

import argparse
import concurrent.futures
import hashlib
import io
import json
import os
import pathlib
import shutil
import tarfile

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from inputs import CAPTION_MU, CAPTION_SIGMA

# Photographs on the web, saved at these qualities with halved colour, take about so many bits a pixel.
BITS_PER_PIXEL, BITS_SIGMA = 2.0, 0.25
QUALITIES = (85, 91)
# Counts up whenever the same recipe would give other bytes.
RECIPE = 1
SYLLABLES = "ba con der el fra gu hol in jo ka lem mi nor ot pre qui ran sto tri ul ver wil xen yor za".split()


def noise(height, width, power, draw):
    """One plane of noise whose amplitude falls as 1/frequency**power, of unit spread: a photograph's is close to 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(draw.standard_normal((height, width), dtype=np.float32)) / frequency**power
    plane = np.fft.irfft2(spectrum, (height, width)).astype(np.float32)
    return plane / plane.std()


def shapes(height, width, draw):
    """Things with outlines in front of each other, in plain colours, as a lens draws them: never quite sharp."""
    picture = Image.new("RGB", (width, height), tuple(draw.integers(60, 200, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    for _ in range(draw.integers(8, 30)):
        x, y = draw.uniform(0, width), draw.uniform(0, height)
        a, b = draw.lognormal(-2.3, 0.8, 2) * width
        colour = tuple(draw.integers(20, 236, 3).tolist())
        if draw.random() < 0.5:
            pen.ellipse((x - a, y - b, x + a, y + b), fill=colour)
        else:
            angles = np.sort(draw.uniform(0, 2 * np.pi, draw.integers(3, 7)))
            pen.polygon([(x + a * np.cos(it), y + b * np.sin(it)) for it in angles], fill=colour)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float32)


def photo(job):
    """One JPEG: shapes under soft light, with texture of uneven strength, as much of it as gives the bits that are wanted."""
    seed, wide, high = job
    draw = np.random.default_rng(seed)
    width, height = (round(it * draw.uniform(0.9, 1.1)) for it in (wide, high))
    wanted = BITS_PER_PIXEL * np.exp(draw.normal(0, BITS_SIGMA))
    quality = int(draw.integers(*QUALITIES))
    light = noise(height, width, 2.0, draw)[..., None] * 25
    # Sky beside grass: where texture is strong and where there is hardly any.
    strength = np.exp(noise(height, width, 1.8, draw) * 0.9)[..., None]
    grain = noise(height, width, 0.9, draw)[..., None] + 0.3 * np.stack([noise(height, width, 1.1, draw) for _ in range(3)], axis=-1)
    plain, texture = shapes(height, width, draw) + light, grain * strength
    low, high = 0.0, 90.0
    for _ in range(7):
        gain = (low + high) / 2
        out = io.BytesIO()
        Image.fromarray(np.clip(plain + gain * texture, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=quality, subsampling=2)
        low, high = (gain, high) if out.tell() * 8 / (width * height) < wanted else (low, gain)
    return out.getvalue(), width, height


def caption(draw):
    """Words enough to have the length of a web caption, most of them of two or three syllables."""
    words = max(1, round(np.exp(draw.normal(CAPTION_MU, CAPTION_SIGMA)) / 1.6))
    return " ".join("".join(draw.choice(SYLLABLES, draw.integers(1, 4))) for _ in range(words)).capitalize()


def marked(jpeg, key):
    """The same picture with a comment (marker FFFE) behind its first two bytes."""
    return jpeg[:2] + b"\xff\xfe" + (len(key) + 2).to_bytes(2, "big") + key.encode() + jpeg[2:]


def add(tar, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def write_kind(folder, kind, seed, pool):
    """Writes the tars of one kind into a new folder; returns what they hold."""
    name, size, tars, pairs, distinct = kind.split(":")
    wide, high = map(int, size.split("x"))
    tars, pairs = int(tars), int(pairs)
    salt = int.from_bytes(hashlib.sha256(size.encode()).digest()[:4], "big")
    photos = list(pool.map(photo, [([seed, salt, number], wide, high) for number in range(int(distinct))], chunksize=4))
    draw = np.random.default_rng([seed, salt])
    texts = [caption(draw) for _ in range(5000)]
    (folder / name).mkdir()
    picture_bytes = pixels = 0
    for number in range(tars):
        with tarfile.open(folder / name / f"{number:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(number * pairs, (number + 1) * pairs):
                key, text = f"{index:09}", texts[draw.integers(len(texts))]
                jpeg, width, height = photos[draw.integers(len(photos))]
                jpeg = marked(jpeg, key)
                about = {
                    "caption": text, "url": f"https://example.org/{key}.jpg", "key": key, "status": "success", "error_message": None,
                    "width": width, "height": height, "original_width": width, "original_height": height, "exif": "{}",
                    "sha256": hashlib.sha256(jpeg).hexdigest(),
                }
                add(tar, f"{key}.jpg", jpeg)
                add(tar, f"{key}.json", json.dumps(about).encode())
                add(tar, f"{key}.txt", text.encode())
                picture_bytes, pixels = picture_bytes + len(jpeg), pixels + width * height
    count = tars * pairs
    return {
        "tars": tars, "pairs": count, "bytes": sum(it.stat().st_size for it in (folder / name).iterdir()),
        "pictureBytes": picture_bytes / count, "bitsPerPixel": picture_bytes * 8 / pixels, "distinct": int(distinct),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("kinds", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    made = {}
    with concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for kind in args.kinds:
            name = kind.split(":")[0]
            recipe = {"recipe": RECIPE, "kind": kind, "seed": args.seed, "numpy": np.__version__}
            record = args.folder / f"{name}.json"
            found = json.loads(record.read_text()) if record.exists() else {}
            if {key: found.get(key) for key in recipe} != recipe:
                shutil.rmtree(args.folder / name, ignore_errors=True)
                record.unlink(missing_ok=True)
                args.folder.mkdir(parents=True, exist_ok=True)
                found = {**recipe, **write_kind(args.folder, kind, args.seed, pool)}
                # Last, so that a run cut short is begun again.
                record.write_text(json.dumps(found) + "\n")
            made[name] = found
    print(json.dumps(made))


if __name__ == "__main__":
    main()
