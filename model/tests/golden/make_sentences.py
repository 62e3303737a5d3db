"""Makes `sentences.json` and `sentences.safetensors`: texts, and their embeddings [texts, width] of unit length.

Never part of the gate; run by hand, with the encoder's folder that `make setup` fetched:

    python3 -m venv V
    V/bin/pip install -r requirements.txt
    V/bin/python make_sentences.py PATH/all-minilm-l6-v2
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

HERE = Path(__file__).parent
# An empty text, another script, a word cut into pieces and a text of more than 256 tokens are among them.
TEXTS = ["a photo of a cat", "Lemon SVG theme", "", "\u65e5\u672c\u8a9e caf\u00e9 \U0001f600", "gramastar " * 200, "flag of France, blue white and red"]

if len(sys.argv) != 2:
    sys.exit("usage: make_sentences.py FOLDER_OF_THE_ENCODER")
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModel.from_pretrained(sys.argv[1]).eval()
batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
with torch.no_grad():
    hidden = model(**batch).last_hidden_state
mask = batch["attention_mask"].unsqueeze(-1).float()
mean = (hidden * mask).sum(1) / mask.sum(1)
save_file({"embeddings": torch.nn.functional.normalize(mean, dim=1).contiguous()}, HERE / "sentences.safetensors")
(HERE / "sentences.json").write_text(json.dumps(TEXTS) + "\n")
