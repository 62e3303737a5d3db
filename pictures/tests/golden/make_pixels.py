"""Makes pixels/ in this folder: small pictures of every kind, and the pixels open_clip has of them. Never part of the gate:

    python3 -m venv V
    V/bin/pip install torch==2.11.0 torchvision==0.26.0 open_clip_torch==3.3.0 pillow==13.0.0
    V/bin/python make_pixels.py

Pictures are converted to RGB before they are transformed, as webdataset's "pilrgb" and torchvision's ImageFolder do for
open_clip. Its transform would convert last by itself, which changes nothing but palettes and partly transparent pictures.
"""

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

HERE = Path(__file__).parent
PIXELS = HERE / "pixels"
# What each of these is turned into; 32 is of every file.
AT_80 = ["420.jpg", "422.jpg", "cmyk.jpg", "lossy.webp"]
AT_224 = ["scene.jpg"]
# left, top, width, height
CROPS = {"scene.jpg": (7, 3, 287, 231), "422.jpg": (1, 2, 66, 112), "rgb.png": (0, 1, 88, 51)}


def scene(width, height, noise, seed=3):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([128 + 100 * np.sin(x / 5), 128 + 90 * np.cos(y / 4 + x / 9), (x * 2 + y) % 256], -1)
    return Image.fromarray((base + rng.normal(0, noise, base.shape)).clip(0, 255).astype(np.uint8))


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(pixels, depth, colour, interlaced=False):
    """A PNG of kinds that Pillow does not write. `pixels`: [height, width, channels], values of `depth` bits."""
    height, width, channels = pixels.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, across in passes if interlaced else [(0, 0, 1, 1)]:
        for row in pixels[top::down, left::across]:
            bits = np.unpackbits(row.reshape(-1, 1).astype(np.uint8), axis=1)[:, 8 - depth :]
            if bits.size:
                rows += b"\0" + np.packbits(bits.reshape(-1)).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def files():
    noisy, smooth, tall = scene(88, 53, 12), scene(88, 53, 0), scene(70, 120, 3)
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 88).astype(np.uint8), (53, 1)))
    clear = smooth.copy()
    clear.putalpha(alpha)
    palette = smooth.quantize(40)
    cmyk = encoded(noisy.convert("CMYK"), "JPEG", quality=85)
    plain = encoded(noisy, "JPEG", quality=92)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees, which open_clip does not heed
    grey = np.array(smooth.convert("L"))[..., None]
    second = smooth.rotate(180)
    scan = plain.index(b"\xff\xda") + 400
    return {
        "420.jpg": plain,
        "422.jpg": encoded(tall, "JPEG", quality=90, subsampling="4:2:2"),
        "444.jpg": encoded(smooth, "JPEG", quality=90, subsampling="4:4:4"),
        "411.jpg": encoded(smooth, "JPEG", quality=90, subsampling="4:1:1"),
        "progressive.jpg": encoded(noisy, "JPEG", quality=75, progressive=True),
        "restarts.jpg": encoded(smooth, "JPEG", quality=90, restart_marker_blocks=2),
        "stored-rgb.jpg": encoded(smooth, "JPEG", quality=80, keep_rgb=True),
        "turned.jpg": encoded(smooth, "JPEG", quality=80, exif=exif),
        "grey.jpg": encoded(noisy.convert("L"), "JPEG", quality=85),
        "cmyk.jpg": cmyk,
        # The same numbers, declared as luma, chroma and black.
        "ycck.jpg": cmyk.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2"),
        # Faults that libjpeg warns of and decodes across.
        "faulty.jpg": plain[:scan] + bytes([plain[scan] ^ 0x10]) + plain[scan + 1 :],
        "loose-bytes.jpg": plain.replace(b"\xff\xdb", b"\1\2\3\xff\xdb", 1),
        "scene.jpg": encoded(scene(300, 240, 4), "JPEG", quality=75),
        # So tall that Pillow resizes it down first, and across then.
        "tall.jpg": encoded(scene(50, 170, 40), "JPEG", quality=92),
        "rgb.png": encoded(noisy, "PNG"),
        "grey.png": encoded(smooth.convert("L"), "PNG"),
        "alpha.png": encoded(clear, "PNG"),
        "grey-alpha.png": encoded(clear.convert("LA"), "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "palette-alpha.png": encoded(palette, "PNG", transparency=bytes(range(0, 240, 6))),
        "palette-2-bit.png": encoded(smooth.quantize(4), "PNG", bits=2),
        "grey-1-bit.png": encoded(smooth.convert("1"), "PNG"),
        "grey-2-bit.png": png(grey >> 6, 2, 0),
        "grey-4-bit.png": png(grey >> 4, 4, 0),
        "grey-keyed.png": encoded(smooth.convert("L"), "PNG", transparency=int(grey[0, 0, 0])),
        "interlaced.png": png(np.array(smooth), 8, 2, interlaced=True),
        "animated.png": encoded(smooth, "PNG", save_all=True, append_images=[second]),
        "lossless.webp": encoded(noisy, "WEBP", lossless=True),
        "lossy.webp": encoded(tall, "WEBP", quality=90),
        "alpha.webp": encoded(clear, "WEBP", quality=80),
        "lossless-alpha.webp": encoded(clear, "WEBP", lossless=True, exact=True),
        "animated.webp": encoded(smooth, "WEBP", save_all=True, append_images=[second], quality=80),
    }


def transform(picture, size):
    """open_clip's, with its last steps undone: 0 to 255, not 0 to 1, and nought and one for mean and deviation."""
    pixels = image_transform(size, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)(picture)
    return (pixels * 255).round().to(torch.uint8)


def cropped(picture, crop, size):
    left, top, width, height = crop
    return TF.pil_to_tensor(TF.resized_crop(picture, top, left, height, width, [size, size], InterpolationMode.BICUBIC))


def main():
    PIXELS.mkdir(exist_ok=True)
    for old in PIXELS.iterdir():
        old.unlink()
    out = {}
    for name, content in files().items():
        (PIXELS / name).write_bytes(content)
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        for size in [32] + [80] * (name in AT_80) + [224] * (name in AT_224):
            out[f"eval {size} {name}"] = transform(picture, size)
        if name in CROPS:
            out[f"crop 64 {name}"] = cropped(picture, CROPS[name], 64)
            out[f"box {name}"] = torch.tensor(CROPS[name], dtype=torch.int32)
    packed = gzip.compress(save({name: out[name].contiguous() for name in sorted(out)}), 9, mtime=0)
    (PIXELS / "expected.safetensors.gz").write_bytes(packed)
    # For measuring only: a picture as the demo's converter writes them.
    scene(88, 53, 12).resize((170, 128), Image.BICUBIC).save(HERE / "large.jpg", quality=90)
    # Smooth, so that only where a crop lies, and not how it is filtered, can change its pixels.
    across, down = np.meshgrid(np.linspace(0, 255, 401), np.linspace(0, 255, 333))
    ramps = np.stack([across, down, (across + 255 - down) / 2], axis=2)
    Image.fromarray(ramps.round().astype(np.uint8)).save(HERE / "ramps.jpg", quality=95)


main()
