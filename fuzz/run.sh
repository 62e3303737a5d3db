#!/bin/sh
# Fuzzes the reader of tars or of indexes: `run.sh tar [seconds]`, `run.sh index [seconds]`. Stable Rust
# will do: the instrumentation is LLVM's own. What is found lies in fuzz/artifacts; put it, made small, into
# fuzz/corpus, which the gate runs.
set -eu

target=${1:?name what to fuzz: tar or index}
seconds=${2:-60}
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
mkdir -p "fuzz/artifacts/$target" "fuzz/found/$target"
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1" \
    cargo build --release --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --target x86_64-unknown-linux-gnu --bin "$target"
exec "target/fuzz/x86_64-unknown-linux-gnu/release/$target" \
    -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -max_len=65536 \
    -artifact_prefix="fuzz/artifacts/$target/" "fuzz/found/$target" "fuzz/corpus/$target"
