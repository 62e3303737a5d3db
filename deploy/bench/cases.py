"""What is measured, and how much arithmetic it is."""

import dataclasses

# Dense bf16 TFLOP/s by a part of the device's name, from the makers' data sheets; the first match counts.
BF16_PEAKS = [
    ("H200", 989), ("H100 PCIe", 756), ("H100 NVL", 835), ("H100", 989), ("GH200", 989), ("B200", 2250),
    ("A100", 312), ("L40S", 362), ("L4", 121), ("A10", 125),
]


@dataclasses.dataclass(frozen=True)
class Case:
    """One model trained by both sides. Without `want` it is shown, and is no mark."""

    name: str
    model: str
    pairs: int
    device: str
    precision: str
    want: float | None
    rate: float
    warm_up: int
    rounds: int
    steps: int
    full: bool = False
    torchcompile: bool = False
    batches: int = 4


def cpu(name, model, pairs, rate, warm_up, rounds, steps):
    return [
        Case(f"clip-cpu-{name}", model, pairs, "cpu", "f32", 1.0, rate, warm_up, rounds, steps),
        Case(f"clip-cpu-{name}-full", model, pairs, "cpu", "f32", None, rate, warm_up, max(3, rounds // 2), steps, full=True),
    ]


def gpu(name, model, pairs, rate):
    plain = Case(f"clip-gpu-{name}", model, pairs, "cuda:0", "bf16", 1.1, rate, 4, 3, 20)
    return [
        plain,
        dataclasses.replace(plain, name=plain.name + "-full", want=None, full=True),
        # Two rounds, since every round compiles.
        dataclasses.replace(plain, name=plain.name + "-torchcompile", want=None, torchcompile=True, rounds=2),
    ]


# Rates at which losses fall without leaps: a leap blows rounding up, and the sides would part for no fault of theirs.
CASES = [
    *cpu("b32", "ViT-B-32", 32, 5e-5, 2, 5, 2),
    *cpu("small", "small", 128, 3e-4, 3, 9, 8),
    *gpu("b32", "ViT-B-32", 1024, 1e-4),
    *gpu("b16", "ViT-B-16", 512, 1e-4),
    *gpu("l14", "ViT-L-14", 256, 5e-5),
]


def tower_flops(positions, width, layers, hidden):
    """Forward multiply-adds, counted as two, of a stack of blocks on one sequence.

    A position costs 2·4·width² for query, key, value and output, 2·2·width·hidden for the MLP and
    2·2·positions·width for scores and their sum; a causal mask saves nothing here.
    """
    return layers * positions * (8 * width**2 + 4 * width * hidden + 4 * positions * width)


def training_flops(config, pairs):
    """Model FLOPs of one pair in one step: three times the forward pass of both towers at full context length.

    Norms, activations, softmax and the optimizer are not counted; whatever a side skips or computes
    twice does not change the number, which is what makes it comparable.
    """
    vision, text, embed = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    width, patch = vision["width"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    hidden = int(width * vision.get("mlp_ratio", 4.0))
    image = 2 * patches * width * 3 * patch**2 + tower_flops(patches + 1, width, vision["layers"], hidden) + 2 * width * embed
    hidden = int(text["width"] * text.get("mlp_ratio", 4.0))
    caption = tower_flops(text["context_length"], text["width"], text["layers"], hidden) + 2 * text["width"] * embed
    logits = 2 * 2 * pairs * embed  # of both directions
    return 3 * (image + caption + logits)
