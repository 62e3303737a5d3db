"""Makes the golden files in this folder, those of make_pixels.py excepted. Never part of the gate; run it by hand:

    python3 -m venv V
    V/bin/pip install torch==2.11.0 open_clip_torch==3.3.0 transformers==5.23.0
    V/bin/python make_golden.py PATH/all-minilm-l6-v2
"""

import json
import math
import sys
from pathlib import Path

import open_clip
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file

HERE = Path(__file__).parent
MICRO = {
    "embed_dim": 12,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 9, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2, "mlp_ratio": 4.0},
}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def folder(path, model_cfg, state):
    path.mkdir(exist_ok=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}}
    (path / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({k: v.clone().contiguous() for k, v in state.items()}, path / "open_clip_model.safetensors", metadata={"format": "pt"})


def clip():
    torch.manual_seed(5)
    model = open_clip.CLIP(**MICRO)
    with torch.no_grad():  # the defaults leave biases at nought, which would hide mistakes
        for name, p in model.named_parameters():
            if name != "logit_scale":
                p.add_(torch.randn_like(p) * 0.05)
    folder(HERE / "micro", MICRO, model.state_dict())
    pixels = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    lengths = [3, 9, 5, 4, 7, 6]
    tokens = torch.zeros(6, 9, dtype=torch.int64)
    for i, n in enumerate(lengths):
        tokens[i, 0], tokens[i, 1 : n - 1], tokens[i, n - 1] = 38, torch.randint(1, 38, (n - 2,)), 39
    images = (pixels.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    out = {"pixels": pixels, "tokens": tokens}
    out["images"], out["captions"] = model.encode_image(images).detach(), model.encode_text(tokens).detach()
    quick = open_clip.CLIP(**{**MICRO, "quick_gelu": True})
    quick.load_state_dict(model.state_dict())
    out["images_quick"], out["captions_quick"] = quick.encode_image(images).detach(), quick.encode_text(tokens).detach()

    gain = lambda n, p: p.ndim < 2
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if gain(n, p)], "weight_decay": 0.0},
            {"params": [p for n, p in named if not gain(n, p)], "weight_decay": 0.2},
        ],
        lr=1.0, betas=(0.9, 0.98), eps=1e-6,
    )
    peak, warmup, total, losses, scales = 2e-2, 4, 24, [], []
    for step in range(20):
        lr = peak * (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) * peak
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        i, t, s = model(images, tokens)[:3]
        loss = ClipLoss()(i, t, s)
        loss.backward()
        if step == 0:
            for n, p in named:
                out[f"grad.{n}"] = p.grad.clone()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        scales.append(model.logit_scale.item())
    out["losses"], out["logit_scales"] = torch.tensor(losses), torch.tensor(scales)
    save_file({k: v.contiguous() for k, v in out.items()}, HERE / "clip.safetensors")
    print(losses)


def tokens():
    lines = [
        "", " ", "a photo of a cat", "A Photo of the Lemon SVG theme!", "don't stop, we'll see they've I'm he'd it's you're",
        "1999 was 20 years ago: 3.14159", "two\tspaces   and\nlines", "gramastar", "Tom &amp; Jerry &lt;3 &quot;cheese&quot;",
        "AT&amp;amp;T", "caf\u00e9 na\u00efve \u00fcber stra\u00dfe", "\u00c5ngstr\u00f6m \u00d8RSTED", "\u65e5\u672c\u8a9e\u306e\u732b", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "emoji \U0001f600\U0001f431 party",
        "e-mail: someone@example.org", "http://example.org/a?b=c#d", "snake_case_word and CamelCaseWord", "#hashtag @name $5.00 100%",
        "supercalifragilisticexpialidocious", "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
        "(brackets) [square] {curly} <angle>", "dots... and --- dashes -- here", "\u201ccurly\u201d \u2018quotes\u2019 it\u2019s", "half \u00bd and \u00b2 super", "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "x", "'s", "<start_of_text> hello <end_of_text>", "\u0394\u03b5\u03bb\u03c4\u03b1 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627", "icon of a blue folder, 48x48 (tango)", "flag of C\u00f4te d'Ivoire",
        "stop sign; traffic-sign / road & street", "&#169; 2009 &#xe9;t\u00e9 &nbsp; fin", "rock'n'roll 80's", "\uff26\uff55\uff4c\uff4c \uff57\uff49\uff44\uff54\uff48",
    ]
    tokenizer = open_clip.SimpleTokenizer()
    rows = [{"text": t, "ids": [i for i in r.tolist()]} for t, r in zip(lines, tokenizer(lines, 32))]
    (HERE / "tokens.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


def sentences(encoder):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    texts = ["a photo of a cat", "Lemon SVG theme", "", "\u65e5\u672c\u8a9e caf\u00e9 \U0001f600", "gramastar " * 200, "flag of France, blue white and red"]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).float()
    mean = (hidden * mask).sum(1) / mask.sum(1)
    save_file({"embeddings": torch.nn.functional.normalize(mean, dim=1).contiguous()}, HERE / "sentences.safetensors")
    (HERE / "sentences.json").write_text(json.dumps(texts) + "\n")


clip()
tokens()
sentences(sys.argv[1])
