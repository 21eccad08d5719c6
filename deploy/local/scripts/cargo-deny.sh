#!/usr/bin/env bash
# Runs cargo-deny: the one installed, else one built once and kept in the user's cache directory.
#
# Advisories are not checked here: they need the RustSec database, a git repository that a machine which reaches nothing
# but a package registry cannot fetch. Where it can be, run `cargo deny check advisories` as well.
set -euo pipefail

readonly VERSION=0.20.2

if command -v cargo-deny >/dev/null; then
  deny=cargo-deny
else
  root=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/cargo-deny-$VERSION
  deny=$root/bin/cargo-deny
  if [ ! -x "$deny" ]; then
    echo "cargo-deny: building $VERSION once, a few minutes; kept in $root" >&2
    # Unoptimised: it compiles in half the time and runs for two seconds.
    cargo install cargo-deny --version "=$VERSION" --locked --debug --quiet --root "$root" >&2
  fi
fi
exec "$deny" --locked check licenses bans sources
