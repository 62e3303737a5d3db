"""What both sides of a benchmark train: a model folder as open_clip writes it, and batches.

Everything is drawn from a seed, so a case is the same on every machine.
"""

import json
import math

import open_clip
import torch
from safetensors.torch import save_file

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
START, END = 49_406, 49_407
# Lengths of web captions (alt texts) in tokens are close to log-normal: many short ones, a long tail.
# This one has a mean of 15, which start and end make 17, before the cap at the context's length.
CAPTION_SIGMA = 0.7
CAPTION_MU = math.log(15) - CAPTION_SIGMA**2 / 2
# Each pair belongs to a topic, which shows in its picture and in its caption: losses can fall.
TOPICS = 256


def small():
    """Clade's preset `small` (model/src/config.rs), which open_clip does not have."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 40, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 49_408, "width": 128, "heads": 4, "layers": 4},
    }


def model_config(name):
    return small() if name == "small" else open_clip.get_model_config(name)


def write_model(folder, name, seed=1):
    """Makes an open_clip model with random weights and saves it; returns its configuration."""
    config = model_config(name)
    torch.manual_seed(seed)
    state = open_clip.CLIP(**config).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return config


def pictures(topics, size, generator):
    """Smooth random pictures, u8 [pairs, 3, size, size]: a topic's pattern and one of their own, as waves of colour."""
    patterns = torch.rand(TOPICS, 3, 5, 5, generator=generator)
    own = torch.rand(len(topics), 3, 7, 7, generator=generator)
    out = torch.empty(len(topics), 3, size, size, dtype=torch.uint8)
    for part in torch.arange(len(topics)).split(64):
        wide = (torch.nn.functional.interpolate(it, (size, size), mode="bicubic") for it in (patterns[topics[part]], own[part]))
        out[part] = (sum(wide) * 127.5).clamp(0, 255).to(torch.uint8)
    return out


def captions(topics, context, full, generator):
    """Token ids [pairs, context]: start, the topic's token, others of which low ids are common, end, padding."""
    lengths = torch.randn(len(topics), generator=generator).mul(CAPTION_SIGMA).add(CAPTION_MU).exp().round()
    lengths = torch.full_like(lengths, context) if full else (lengths + 2).clamp(3, context)
    lengths = lengths.long().unsqueeze(1)
    # A cube of an even draw: few tokens make up most of a text, as in any language.
    ids = (torch.rand(len(topics), context, generator=generator) ** 3 * (START - 1)).long() + 1
    place = torch.arange(context).unsqueeze(0)
    ids[:, 0], ids[:, 1] = START, topics * 7 + 1000
    ids = torch.where(place == lengths - 1, END, torch.where(place >= lengths, 0, ids))
    return ids, lengths.float().mean().item()


def write_batches(path, config, batches, pairs, full=False, seed=2):
    """Writes `pixels` [batches, pairs, 3, size, size] u8 and `tokens` [batches, pairs, context]; returns the captions' mean length."""
    generator = torch.Generator().manual_seed(seed)
    size, context = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    topics = torch.randint(0, TOPICS, (batches * pairs,), generator=generator)
    pixels = pictures(topics, size, generator)
    tokens, mean_length = captions(topics, context, full, generator)
    save_file({"pixels": pixels.view(batches, pairs, 3, size, size), "tokens": tokens.view(batches, pairs, context)}, path)
    return mean_length
