#!/usr/bin/env bash
# Puts CLIP's byte-pair vocabulary into assets/clip-bpe, out of the open_clip
# wheel (MIT).
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

target=$project/assets/clip-bpe
wheel=open_clip_torch-3.3.0-py3-none-any.whl
stamp=$(digests_of $wheel)

lock
if is_stamped "$target" "$stamp" && [ -f "$target/bpe_simple_vocab_16e6.txt.gz" ]; then
  say "CLIP vocabulary is in place"
  exit
fi
fetch_wheel $wheel open_clip_torch==3.3.0
new_scratch "$project/assets"
unpack $wheel open_clip/bpe_simple_vocab_16e6.txt.gz=bpe_simple_vocab_16e6.txt.gz
put_in_place "$target" "$stamp"
say "CLIP vocabulary is in place"
