"""Compares Clade's tokenizer with open_clip's, on one core each: the ids, and the time they take.

    make bench-tokens

The captions are made here from the
vocabulary's own words, all of them different: open_clip remembers the words that it has seen, and
from the second round on it has seen them all, which is to its advantage.
"""

import argparse
import gzip
import itertools
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import numpy as np
import open_clip
import torch

ROOT = pathlib.Path(__file__).parent.parent.parent
WANT = 20

parser = argparse.ArgumentParser()
parser.add_argument("--vocabulary", type=pathlib.Path, default=ROOT / "assets/clip-bpe/bpe_simple_vocab_16e6.txt.gz")
parser.add_argument("--example", type=pathlib.Path, default=ROOT / "target/release/examples/tokens_speed")
parser.add_argument("--captions", type=int, default=20_000)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()
torch.set_num_threads(1)
draw = random.Random(args.seed)

# Merges stand in order of frequency, so the n-th word is drawn about as often as in real text.
merges = gzip.open(args.vocabulary, "rt", encoding="utf-8").read().split("\n")[1:48895]
words = ["".join(merge.split())[:-4] for merge in merges if merge.endswith("</w>")]
words = [word for word in words if len(word) > 1 and word.isascii() and word.isalpha()]
weights = list(itertools.accumulate(1 / (place + 10) for place in range(len(words))))
NUMBERS = ["2019", "12", "3.5", "1968", "4x6", "100%", "$19.99", "1/2", "No. 7", "1,200", "HD", "4K", "v2.0"]
LINKS = [" - ", ", ", " | ", ": ", " & ", ", ", ". ", " (", "'s ", "/", "-", "... ", "! "]
# One caption in ten holds something of these.
OTHER = [
    "&amp;", "&quot;", "&#39;s", "&nbsp;", "&eacute;t&eacute;", "café", "Müller", "São Paulo", "it’s", "“new”", "–", "™", "©", "½",
    "naïve", "Łódź", "Привет", "мир", "猫の写真", "서울", "مرحبا", "Ελλάδα", "😀", "🎉🎉", "❤️", "cafÃ©", "itâ€™s", "â€“", "ﬁne", "Ｆｕｌｌ",
]


def word():
    kind = draw.random()
    if kind < 0.06:
        return draw.choice(NUMBERS)
    if kind < 0.12:  # a name that is no word of the vocabulary
        return (draw.choice(words)[:5] + draw.choice(words)[-4:]).capitalize()
    drawn = draw.choices(words, cum_weights=weights)[0]
    return drawn.capitalize() if kind < 0.4 else drawn


def caption():
    parts = [word()]
    for _ in range(max(2, min(40, int(draw.lognormvariate(2.1, 0.5))))):
        parts += [draw.choice(LINKS) if draw.random() < 0.15 else " ", word()]
    if draw.random() < 0.1:
        parts.insert(draw.randrange(len(parts)), f" {draw.choice(OTHER)} ")
    return "".join(parts)


captions = list(dict.fromkeys(caption() for _ in range(args.captions)))
mended = sum(not text.isascii() or "&" in text for text in captions)
print(f"{len(captions)} captions, {mended} of them with & or beyond ASCII, such as:")
for text in captions[:5]:
    print(f"    {text}")

tokenizer = open_clip.SimpleTokenizer()
python, rust = [], []
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "captions").write_text("\n".join(captions) + "\n", encoding="utf-8")
    for number in range(args.rounds):
        start = time.perf_counter()
        rows = tokenizer(captions)
        python.append(len(captions) / (time.perf_counter() - start))
        said = subprocess.check_output([args.example, args.vocabulary, folder / "captions", folder / "ids"], text=True)
        rust.append(float(said.split()[0]))
        print(f"round {number}: open_clip {python[-1]:9.0f} captions/s, clade {rust[-1]:9.0f} captions/s")
    ids = np.fromfile(folder / "ids", dtype="<i8").reshape(-1, 77)

ids_agree = int((ids == rows.numpy()).all(axis=1).sum()) if len(ids) == len(rows) else 0
ratio = statistics.median(rust) / statistics.median(python)
print(f"rows of equal ids: {ids_agree} of {len(captions)}")
print(f"medians: open_clip {statistics.median(python):.0f}, clade {statistics.median(rust):.0f} captions/s, ratio {ratio:.1f}")
met = ratio >= WANT and ids_agree == len(captions)
print(f"mark tokens-per-core {ratio:.1f} x want >= {WANT}: {'met' if met else 'short'}")
