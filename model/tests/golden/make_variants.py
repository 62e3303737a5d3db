"""Makes `variants.json` and `variants.safetensors`: tiny models of every kind of ViT and text tower that is read.

Never part of the gate; run by hand:

    python3 -m venv V
    V/bin/pip install -r requirements.txt
    V/bin/python make_variants.py

`variants.json` holds a configuration per name; the other file, for each NAME:

    NAME/weights/KEY    the model's tensors
    NAME/images         [4, 8]   picture features of `pixels`, not normalised
    NAME/captions       [4, 8]   caption features of `tokens`, not normalised

and once `pixels` [4, 3, 8, 8] u8 and `tokens` [4, 6] i64.
"""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
VISION = {"image_size": 8, "patch_size": 4, "layers": 2, "width": 8, "head_width": 4}
TEXT = {"context_length": 6, "vocab_size": 12, "layers": 2, "width": 8, "heads": 2}
VARIANTS = {
    "clipa": (
        {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        {"no_causal_mask": True, "pool_type": "last"},
        {},
    ),
    "worldwide": ({"mlp_ratio": 4.3637}, {"pool_type": "eos", "eos_id": 7}, {"quick_gelu": True}),
    "scaled": ({"ls_init_value": 0.1}, {"ls_init_value": 0.2, "pool_type": "first", "proj_bias": True}, {}),
    "mean": (
        {"pool_type": "avg", "norm_kwargs": {"eps": 1e-3}},
        {"no_causal_mask": True, "proj_type": "none", "act_kwargs": {"approximate": "tanh"}},
        {},
    ),
}


def main():
    torch.manual_seed(8)
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    tokens = torch.tensor([[10, 3, 11, 0, 0, 0], [10, 7, 4, 7, 11, 0], [10, 1, 2, 3, 4, 11], [10, 11, 0, 0, 0, 0]])
    images = (pixels.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    out, configs = {"pixels": pixels, "tokens": tokens}, {}
    for name, (vision, text, model_keys) in VARIANTS.items():
        model_cfg = {"embed_dim": 8, **model_keys, "vision_cfg": VISION | vision, "text_cfg": TEXT | text}
        configs[name] = {"model_cfg": model_cfg}
        model = open_clip.CLIP(**model_cfg).eval()
        with torch.no_grad():  # the defaults leave biases at nought, which would hide mistakes
            for key, p in model.named_parameters():
                if key != "logit_scale":
                    p.add_(torch.randn_like(p) * 0.1)
            out[f"{name}/images"], out[f"{name}/captions"] = model.encode_image(images), model.encode_text(tokens)
        for key, value in model.state_dict().items():
            out[f"{name}/weights/{key}"] = value
    (HERE / "variants.json").write_text(json.dumps(configs, indent=1) + "\n")
    save_file({k: v.clone().contiguous() for k, v in out.items()}, HERE / "variants.safetensors")


main()
