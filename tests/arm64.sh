#!/usr/bin/env bash
# Checks that twcheck compiles for arm64: with Debian's own compiler and standard library, unpacked below
# the target folder (some 150 MB to fetch, once). Where these cannot be had, the last line says so.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/arm64
# Those of arm64 have a state of their own, or the machine would have to know of its packages.
foreign=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$folder/apt"
    -o Dir::State::lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache"
    -o Dir::State::status=/dev/null -o APT::Sandbox::User= -o Acquire::Languages=none)

fetch() {
    local sudo= packages package
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    mkdir -p "$folder"/apt/{lists,cache/archives}/partial "$folder/root"
    $sudo apt-get -qq -o DPkg::Lock::Timeout=300 update || return
    DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y \
        --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross || return
    # The compiler and what it needs; nothing of it is installed.
    packages=$(apt-get -s install --no-install-recommends rustc-web | sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    (cd "$folder" && apt-get -q -o APT::Sandbox::User= download $packages) || return
    apt-get -qq "${foreign[@]}" update || return
    (cd "$folder" && apt-get -q "${foreign[@]}" download libstd-rust-web-dev) || return
    for package in "$folder"/*.deb; do
        dpkg-deb -x "$package" "$folder/root" || return
    done
    rm "$folder"/*.deb
    libraries=$(find "$folder/root/usr/lib" -name "lib*.so*" -exec dirname {} \; | sort -u | paste -sd :)
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/root/usr/bin/rustc "$@"\n' "$libraries" "$folder" \
        >"$folder/rustc"
    chmod +x "$folder/rustc"
}

not_tried() {
    echo "not tried: $target: $1"
    exit 0
}

mkdir -p "$folder"
[ -x "$folder/rustc" ] || fetch >"$folder/fetch.log" 2>&1 ||
    not_tried "its standard library cannot be had here: $(tail -n 1 "$folder/fetch.log")"
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
has=$("$folder/rustc" --version | cut -d ' ' -f 2)
[ "$(printf '%s\n' "$needed" "$has" | sort -V | head -n 1)" = "$needed" ] ||
    not_tried "rustc $needed is needed, and Debian's is $has"
RUSTC=$folder/rustc cargo check --locked --target "$target"
echo "$target: it compiles, by rustc $has; no test has run there"
