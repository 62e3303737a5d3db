#!/usr/bin/env bash
# Says which prerequisites are missing. Installs nothing, writes nothing.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }

need git git
need g++ g++
need pkg-config pkg-config
need python3 python3
need sha256sum coreutils
need flock util-linux
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then missing+=("Rust 1.95 or newer"); fi
if command -v python3 >/dev/null; then
  python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
fi
if [ ${#missing[@]} -gt 0 ]; then
  list=$(printf '%s, ' "${missing[@]}")
  echo "set-up: error: this machine lacks ${list%, }: install them (on Debian: apt-get install git make g++ pkg-config python3 python3-pip python3-venv; Rust by rustup), then run this again" >&2
  exit 1
fi

version=$(rustc --version | cut -d' ' -f2)
if ! printf '1.95\n%s\n' "$version" | sort -CV; then
  echo "set-up: error: Rust is $version and 1.95 is needed: run 'rustup update stable', then run this again" >&2
  exit 1
fi
