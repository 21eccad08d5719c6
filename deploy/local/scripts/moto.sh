#!/usr/bin/env bash
# Prints the path of moto_server, which stands in for AWS in the tests: $HOLDFAST_MOTO, else one installed once, in the
# versions of moto.txt, and kept in the user's cache directory. Everything but that path goes to standard error.
set -euo pipefail

readonly VERSIONS=$(cd "$(dirname "$0")" && pwd)/moto.txt

if [ -n "${HOLDFAST_MOTO:-}" ]; then
  [ -x "$HOLDFAST_MOTO" ] || { echo "HOLDFAST_MOTO=$HOLDFAST_MOTO is not a program that can be run" >&2; exit 72; }
  echo "$HOLDFAST_MOTO"; exit 0
fi

# Other versions, and another Python, are another environment.
key=$( { python3 --version; cat "$VERSIONS"; } | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/moto-$key
if [ -x "$cache/bin/moto_server" ] && [ -e "$cache/complete" ]; then echo "$cache/bin/moto_server"; exit 0; fi

python3 -c 'import ensurepip' 2>/dev/null || { echo "moto needs Python's venv: run 'make system' first" >&2; exit 69; }

mkdir -p "$cache"
exec 9>"$cache.lock"
flock 9 # two callers at once: the second waits and finds the first one's work
if [ -x "$cache/bin/moto_server" ] && [ -e "$cache/complete" ]; then echo "$cache/bin/moto_server"; exit 0; fi

echo "moto: installing once, about a minute; kept in $cache" >&2
# Made at its own place, since a virtual environment cannot be moved; `complete` says that nothing is missing.
rm -rf "$cache"
python3 -m venv "$cache" >&2
"$cache/bin/pip" install --quiet --disable-pip-version-check --no-input --requirement "$VERSIONS" >&2
touch "$cache/complete"
echo "$cache/bin/moto_server"
