#!/usr/bin/env bash
# Prints the path of a bitcoind: $HOLDFAST_BITCOIND, else the one on PATH, else one built once from the
# Bitcoin Core source that the package libbitcoinkernel-sys carries, and kept in the user's cache directory.
# Everything but that path goes to standard error.
set -euo pipefail

readonly PACKAGE=libbitcoinkernel-sys VERSION=0.4.1

if [ -n "${HOLDFAST_BITCOIND:-}" ]; then
  [ -x "$HOLDFAST_BITCOIND" ] || { echo "HOLDFAST_BITCOIND=$HOLDFAST_BITCOIND is not a program that can be run" >&2; exit 72; }
  echo "$HOLDFAST_BITCOIND"; exit 0
fi
if found=$(command -v bitcoind); then echo "$found"; exit 0; fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/bitcoind-$VERSION
if [ -x "$cache/bitcoind" ]; then echo "$cache/bitcoind"; exit 0; fi

for tool in cmake ninja c++ cargo; do
  command -v "$tool" >/dev/null || { echo "building bitcoind needs $tool: run 'make system' first" >&2; exit 69; }
done

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # two callers at once: the second waits and finds the first one's work
if [ -x "$cache/bitcoind" ]; then echo "$cache/bitcoind"; exit 0; fi

work=$cache/build
mkdir -p "$work/fetch/src"
cat >"$work/fetch/Cargo.toml" <<TOML
[package]
name = "fetch-bitcoin-core"
version = "0.0.0"
edition = "2021"
[dependencies]
$PACKAGE = "=$VERSION"
[workspace]
TOML
: >"$work/fetch/src/lib.rs"
echo "bitcoind: fetching Bitcoin Core's source ($PACKAGE $VERSION)" >&2
manifest=$(cd "$work/fetch" && cargo metadata --format-version 1 --quiet |
  python3 -c 'import json,sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"]==sys.argv[1]))' "$PACKAGE")
source=$(dirname "$manifest")/bitcoin

echo "bitcoind: building once, about 10 minutes on two cores; kept in $cache" >&2
# No wallet, no tests, no hardening: this program serves regtest on the loopback interface and nothing else.
cmake -S "$source" -B "$work/out" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 -DCMAKE_C_FLAGS=-O1 \
  -DENABLE_HARDENING=OFF -DENABLE_WALLET=OFF -DWITH_EMBEDDED_ASMAP=OFF -DENABLE_IPC=OFF -DBUILD_TESTS=OFF -DBUILD_BENCH=OFF \
  -DBUILD_TX=OFF -DBUILD_UTIL=OFF -DWITH_ZMQ=OFF >"$work/configure.log" 2>&1 ||
  { tail -n 20 "$work/configure.log" >&2; echo "bitcoind: cmake failed, see $work/configure.log" >&2; exit 70; }
NINJA_STATUS='bitcoind: %f of %t, %es '
export NINJA_STATUS
if [ -t 2 ]; then ninja -C "$work/out" bitcoind bitcoin-cli >&2
else ninja -C "$work/out" bitcoind bitcoin-cli | awk 'NR % 50 == 0 { print; fflush() }' >&2; fi ||
  { echo "bitcoind: the build failed; run 'ninja -C $work/out' to see why" >&2; exit 70; }
install -s -m 755 "$work/out/bin/bitcoin-cli" "$cache/bitcoin-cli"
install -s -m 755 "$work/out/bin/bitcoind" "$cache/bitcoind.new"
mv "$cache/bitcoind.new" "$cache/bitcoind"
rm -rf "$work"
echo "$cache/bitcoind"
