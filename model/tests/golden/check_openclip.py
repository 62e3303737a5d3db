"""Compares features computed by `--example openclip_folder` with open_clip's of the same folder.

    V/bin/python check_openclip.py FOLDER
"""

import sys
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file

folder = Path(sys.argv[1])
model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
model.eval()
context = open_clip.get_tokenizer(f"local-dir:{folder}").context_length
ours = load_file(folder / "features.safetensors")
assert context == ours["tokens"].shape[1], f"tokenizer context {context}"
mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.visual.preprocess_cfg["mean"], model.visual.preprocess_cfg["std"]))
with torch.no_grad():
    theirs = {
        "images": model.encode_image((ours["pixels"].float() / 255 - mean) / std, normalize=True),
        "captions": model.encode_text(ours["tokens"], normalize=True),
    }
for name, value in theirs.items():
    off = (value - ours[name]).abs().max().item()
    print(f"{name}: {off:.2e} apart at most")
    assert off < 1e-4, f"{name} differ"
