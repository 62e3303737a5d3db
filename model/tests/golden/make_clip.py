"""Makes `micro/` and `clip.safetensors`: a CLIP model of 19,000 parameters, and what open_clip makes of it.

Never part of the gate; run by hand:

    python3 -m venv V
    V/bin/pip install -r requirements.txt
    V/bin/python make_clip.py

What the file holds (f32, unless another type is named; B is 5 batches, P is 6 pairs):

    pixels          [P, 3, 16, 16] u8   the first batch's pictures
    tokens          [P, 9] i64          and its captions: start, some tokens, end, padding
    images          [P, 12]             picture features, not normalised
    captions        [P, 12]             caption features, not normalised
    images_quick    [P, 12]             the same of the same weights with QuickGELU
    captions_quick  [P, 12]
    grad.NAME       as the parameter    gradient of the first step: of the mean loss over the first batch
    losses          [20]                20 steps on the first batch alone, the loss before each step
    logit_scales    [20]                natural logarithm of the inverse temperature after each step
    train.pixels    [B, P, 3, 16, 16] u8   step N is on batch N modulo B; batch 0 is the first batch
    train.tokens    [B, P, 9] i64
    train.losses    [50]                the loss before each step
    train.logit_scales [50]             after each step
    train.lrs       [50]                the rate each step used
    train.norm.NAME [] f32              norm of the parameter after all 50 steps
"""

import json
import math
from pathlib import Path

import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip_train.scheduler import cosine_lr
from safetensors.torch import save_file

HERE = Path(__file__).parent
MICRO = {
    "embed_dim": 12,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 9, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2, "mlp_ratio": 4.0},
}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
START, END = 38, 39
BATCHES, STEPS = 5, 50


def first_model():
    torch.manual_seed(5)
    model = open_clip.CLIP(**MICRO)
    with torch.no_grad():  # the defaults leave biases at nought, which would hide mistakes
        for name, p in model.named_parameters():
            if name != "logit_scale":
                p.add_(torch.randn_like(p) * 0.05)
    return model


def captions(middles):
    rows = torch.zeros(len(middles), MICRO["text_cfg"]["context_length"], dtype=torch.int64)
    for row, middle in zip(rows, middles, strict=True):
        row[: len(middle) + 2] = torch.tensor([START, *middle, END])
    return rows


def first_batch():
    pixels = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    middles = [torch.randint(1, START, (length - 2,)).tolist() for length in [3, 9, 5, 4, 7, 6]]
    return pixels, captions(middles)


def further_batch():
    """Pairs that can be learnt: each token but the last of a caption tints one stripe of its picture."""
    pixels, middles = torch.randint(0, 96, (6, 3, 16, 16)), []
    for picture in pixels:
        middle = torch.randint(1, START, (int(torch.randint(1, 8, ())),)).tolist()
        for place, token in enumerate(middle):
            picture[token % 3, :, 2 * place : 2 * place + 2] += token * 4
        middles.append(middle)
    return pixels.to(torch.uint8), captions(middles)


def normalise(pixels, dtype=torch.float32):
    mean, std = (torch.tensor(it, dtype=dtype).view(1, 3, 1, 1) for it in (MEAN, STD))
    return (pixels.to(dtype) / 255 - mean) / std


def train(model, batches, steps, peak, warmup, total):
    """open_clip's own training, in its own order; returns what each step said, and the first gradients."""
    dtype = model.logit_scale.dtype
    named = list(model.named_parameters())
    exclude = lambda n, p: p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if exclude(n, p)], "weight_decay": 0.0},
            {"params": [p for n, p in named if not exclude(n, p)], "weight_decay": 0.2},
        ],
        lr=1.0, betas=(0.9, 0.98), eps=1e-6,
    )
    schedule = cosine_lr(optimizer, peak, warmup, total)
    losses, scales, rates, grads = [], [], [], {}
    for step in range(steps):
        rates.append(schedule(step))
        pixels, tokens = batches[step % len(batches)]
        optimizer.zero_grad()
        loss = ClipLoss()(*model(normalise(pixels, dtype), tokens))
        loss.backward()
        if step == 0:
            grads = {n: p.grad.clone() for n, p in named}
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        scales.append(model.logit_scale.item())
    return losses, scales, rates, grads


def write_folder(path, state):
    path.mkdir(exist_ok=True)
    config = {"model_cfg": MICRO, "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}}
    (path / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({k: v.clone().contiguous() for k, v in state.items()}, path / "open_clip_model.safetensors", metadata={"format": "pt"})


model = first_model()
start = {k: v.clone() for k, v in model.state_dict().items()}
write_folder(HERE / "micro", start)
pixels, tokens = first_batch()
out = {"pixels": pixels, "tokens": tokens}
for suffix, quick in [("", False), ("_quick", True)]:
    model = open_clip.CLIP(**{**MICRO, "quick_gelu": quick})
    model.load_state_dict(start)
    out["images" + suffix] = model.encode_image(normalise(pixels)).detach()
    out["captions" + suffix] = model.encode_text(tokens).detach()


def fresh(dtype=torch.float32):
    model = open_clip.CLIP(**MICRO)
    model.load_state_dict(start)
    return model.to(dtype)


losses, scales, _, grads = train(fresh(), [(pixels, tokens)], steps=20, peak=2e-2, warmup=4, total=24)
out |= {f"grad.{n}": g for n, g in grads.items()}
out["losses"], out["logit_scales"] = torch.tensor(losses), torch.tensor(scales)

torch.manual_seed(6)
batches = [(pixels, tokens)] + [further_batch() for _ in range(BATCHES - 1)]
plan = {"steps": STEPS, "peak": 1e-2, "warmup": 8, "total": 60}
model = fresh()
losses, scales, rates, _ = train(model, batches, **plan)
out["train.pixels"], out["train.tokens"] = (torch.stack(it) for it in zip(*batches, strict=True))
out["train.losses"], out["train.logit_scales"], out["train.lrs"] = map(torch.tensor, (losses, scales, rates))
out |= {f"train.norm.{n}": p.detach().norm() for n, p in model.named_parameters()}

# A run that f32's rounding can bend would test nothing: another order of sums could pass or fail by chance.
exact = train(fresh(torch.float64), batches, **plan)[0]
bent = max(abs(a - b) / b for a, b in zip(losses, exact, strict=True))
falls = [1 - losses[STEPS - BATCHES + i] / losses[i] for i in range(BATCHES)]
print(f"losses {losses[0]:.3f} .. {losses[-1]:.3f}; each batch's fell by {[f'{it:.0%}' for it in falls]}")
print(f"logit scale {scales[0]:.4f} .. {scales[-1]:.4f}; f32 is off f64 by {bent:.1e}")
assert bent < 1e-4 and min(falls) > 0.2, "choose another learning rate"
save_file({k: v.contiguous() for k, v in out.items()}, HERE / "clip.safetensors")
