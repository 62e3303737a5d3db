# Sourced instead of fetch.sh by what needs packages of Debian 12. They are
# unpacked but not installed, so no root is needed. The package lists are private
# too: the machine's own may be absent.
# shellcheck shell=bash
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

lists=$downloads/.apt

apt() {
  apt-get -q -o Dir::State="$lists/state" -o Dir::State::status=/var/lib/dpkg/status \
    -o Dir::Cache="$lists/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root "$@" >>"$lists/log" 2>&1
}

package() {
  command -v apt-get >/dev/null ||
    fail "$1 is a package of Debian 12 and this machine has no apt-get: put the files named in deploy/setup/digests.txt into assets/downloads by hand"
  if [ ! -d "$lists" ]; then
    mkdir -p "$lists/state/lists/partial" "$lists/cache/archives/partial"
    # A source that fails matters only if it is the one that has the package.
    apt update || true
  fi
  apt download "$1" || {
    cat "$lists/log" >&2
    return 1
  }
}

# fetch_packages FILE REQUIREMENT [FILE REQUIREMENT]...
fetch_packages() {
  rm -rf "$lists"
  while [ $# -gt 0 ]; do
    fetch "$1" package "$2"
    shift 2
  done
  rm -rf "$lists"
}

# unpack_package FILE FOLDER: everything the package would install, below FOLDER.
unpack_package() {
  command -v dpkg-deb >/dev/null ||
    fail "this machine has no dpkg-deb, which unpacks $1: install the package dpkg"
  dpkg-deb -x "$downloads/$1" "$2" ||
    fail "could not unpack $1 (the reason stands above): free some disk space, then run this again"
}
