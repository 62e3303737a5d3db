"""Shows that a bundle's models are OpenCLIP models: same token ids, same features.

For every model of the bundle: loads it by open_clip, encodes the pictures and texts that Clade kept
in `openclip-check.safetensors`, and compares. Then runs the bundle's route.py against its report.
Exits with 1 if anything differs.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
import open_clip
import torch
from safetensors import safe_open

parser = argparse.ArgumentParser()
parser.add_argument("bundle", type=pathlib.Path)
parser.add_argument("--limit", type=float, default=1e-4, help="largest allowed difference of a feature")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
failures = []


def judge(what, value, limit):
    ok = value <= limit
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {value:.2e} (at most {limit:.0e})")
    if not ok:
        failures.append(what)


with safe_open(str(args.bundle / "openclip-check.safetensors"), framework="numpy") as file:
    arrays = {name: file.get_tensor(name) for name in file.keys()}
    texts = json.loads(file.metadata()["clade"])["texts"]
print(f"{len(arrays['pixels'])} pictures, {len(texts)} texts")

folders = sorted(path.parent for path in args.bundle.glob("**/open_clip_config.json"))
if not folders:
    sys.exit(f"{args.bundle} holds no models")
for folder in folders:
    name = folder.relative_to(args.bundle).as_posix()
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    judge(f"{name} token ids", float(np.abs(tokens.numpy() - arrays["tokens"]).max()), 0)
    config = json.loads((folder / "open_clip_config.json").read_text())["preprocess_cfg"]
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    pixels = torch.from_numpy(arrays["pixels"]).float().div(255).sub(mean).div(std)
    with torch.no_grad():
        images = model.encode_image(pixels, normalize=True).numpy()
        captions = model.encode_text(tokens, normalize=True).numpy()
    judge(f"{name} picture features", float(np.abs(images - arrays[f"{name}.image_features"]).max()), args.limit)
    judge(f"{name} text features", float(np.abs(captions - arrays[f"{name}.text_features"]).max()), args.limit)

report = json.loads((args.bundle / "report.json").read_text())
for entry in report["classification"]:
    for row in entry["rows"]:
        if row["kind"] not in ("paper", "code"):
            continue
        command = [sys.executable, str(args.bundle / "route.py"), str(args.bundle), "--json"]
        command += ["--rule", row["kind"], "--set", str(entry["index"])]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        what = f"route.py {entry['name']}, {row['kind']}'s rule"
        judge(f"{what}, weights", max(abs(a - b) for a, b in zip(found["weights"], row["routed"]["weights"], strict=True)), 1e-4)
        judge(f"{what}, entropy", abs(found["entropy"] - row["routed"]["entropy"]), 1e-4)
        for key in ("top1", "top5", "balanced"):
            judge(f"{what}, {key}", abs(found[key] - row[key]), 1e-4)

if failures:
    sys.exit(f"{len(failures)} of the comparisons differ: {', '.join(failures)}")
print("everything agrees")
