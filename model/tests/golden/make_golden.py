"""Makes `tokens.json`, and the pictures with `pixels.safetensors`. Never part of the gate; run by hand:

    python3 -m venv V
    V/bin/pip install -r requirements.txt
    V/bin/python make_golden.py
"""

import io
import json
from pathlib import Path

import numpy as np
import open_clip
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import functional as TF
from torchvision.transforms import InterpolationMode

HERE = Path(__file__).parent


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


def square(picture, size):
    return TF.pil_to_tensor(TF.center_crop(TF.resize(picture, size, InterpolationMode.BICUBIC), [size, size]))


def pixels():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:53, 0:88]
    base = np.stack([128 + 100 * np.sin(x / 5), 128 + 90 * np.cos(y / 4 + x / 9), (x * 2 + y) % 256], -1)
    picture = Image.fromarray((base + rng.normal(0, 12, base.shape)).clip(0, 255).astype(np.uint8))
    out = {}
    for name, kind, options in [("a.png", "PNG", {}), ("a.jpg", "JPEG", {"quality": 92}), ("a.webp", "WEBP", {"lossless": True})]:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        (HERE / name).write_bytes(buffer.getvalue())
        back = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
        out[f"eval.{name}"], out[f"large.{name}"] = square(back, 32), square(back, 80)
    picture.convert("CMYK").save(HERE / "cmyk.jpg", quality=92)
    picture.convert("L").save(HERE / "grey.jpg", quality=92)
    for name in ["cmyk.jpg", "grey.jpg"]:
        back = Image.open(HERE / name).convert("RGB")
        out[f"eval.{name}"], out[f"large.{name}"] = square(back, 32), square(back, 80)
    # For measuring only: a picture as the demo's converter writes them.
    picture.resize((170, 128), Image.BICUBIC).save(HERE / "large.jpg", quality=90)
    save_file({k: v.contiguous() for k, v in out.items()}, HERE / "pixels.safetensors")


tokens()
pixels()
