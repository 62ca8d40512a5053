#!/usr/bin/env bash
# Installs the system packages gen3d needs on Debian or Ubuntu, and only those that are missing.
#
#   scripts/setup.sh           install what is missing (as root, or through sudo)
#   scripts/setup.sh --check   install nothing; exit 1 if something is missing
set -euo pipefail
cd "$(dirname "$0")/.."

# A C/C++ toolchain and libclang for the crates that wrap C libraries, FFmpeg's libraries and
# program, and Vulkan with a software driver (lavapipe) so that the shaders run without a GPU.
packages=(
  build-essential pkg-config clang libclang-dev
  ffmpeg libavcodec-dev libavdevice-dev libavfilter-dev libavformat-dev libavutil-dev
  libswresample-dev libswscale-dev
  libvulkan1 mesa-vulkan-drivers
)
# The Khronos glTF validator, which the tests run on the assets that gen3d writes; its version and
# checksum stand in the lock file there. npm writes the marker last, so it means complete.
validator=tests/validator
validator_complete=$validator/node_modules/.package-lock.json

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

check=false
case "${1-}" in
  "") ;;
  --check) check=true ;;
  -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) say "error: unknown option $1 (try --check or --help)"; exit 2 ;;
esac

command -v cargo >/dev/null || fail "cargo is not installed; see https://rustup.rs"
wanted_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rust=$(cargo --version | cut -d' ' -f2)
if [[ $(printf '%s\n%s\n' "$wanted_rust" "${rust%%-*}" | sort -V | head -n1) != "$wanted_rust" ]]; then
  fail "cargo is $rust, but $wanted_rust or newer is needed; run: rustup update stable"
fi
command -v dpkg-query >/dev/null ||
  fail "this is not Debian or Ubuntu; install the equivalents of: ${packages[*]} nodejs npm"

installed() {
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}
# Node may come from elsewhere than the distribution, so it is looked for by its programs.
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
missing=()
for package in "${packages[@]}"; do
  installed "$package" || missing+=("$package")
done
validator_missing=true
[[ -e $validator_complete ]] && validator_missing=false

if [[ ${#missing[@]} -eq 0 && $validator_missing == false ]]; then
  say "nothing is missing"
  exit 0
fi
[[ ${#missing[@]} -eq 0 ]] || say "missing system packages: ${missing[*]}"
[[ $validator_missing == false ]] || say "missing npm package: gltf-validator (for $validator)"
if $check; then exit 1; fi

if [[ ${#missing[@]} -gt 0 ]]; then
  root=()
  if [[ $EUID -ne 0 ]]; then
    command -v sudo >/dev/null ||
      fail "neither root nor sudo; run as root: apt-get install --no-install-recommends ${missing[*]}"
    root=(sudo)
  fi
  say "installing with apt-get${root[0]:+ through sudo} (about half a gigabyte if all are missing)"
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}"
fi
if $validator_missing; then
  say "installing the glTF validator"
  # Only the tests need it: without npm's registry the program itself can still be built and run.
  (cd "$validator" && npm ci --silent --no-audit --no-fund) ||
    say "warning: it could not be installed; the tests that validate GLB files will fail"
fi
say "done"
