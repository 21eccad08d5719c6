#!/usr/bin/env bash
# Installs the Debian packages that the demo and the tests need, if any is missing. Says nothing and changes nothing
# when all are there.
set -euo pipefail

missing=()
need() { # need <package> <what to look for>...
  local package=$1; shift
  for thing in "$@"; do
    case $thing in
      /*) compgen -G "$thing" >/dev/null || { missing+=("$package"); return; } ;;
      *) command -v "$thing" >/dev/null || { missing+=("$package"); return; } ;;
    esac
  done
}

need postgresql '/usr/lib/postgresql/*/bin/initdb'
need softhsm2 softhsm2-util '/usr/lib/softhsm/libsofthsm2.so'
need util-linux setpriv
need g++ c++
need cmake cmake
need pkg-config pkg-config
need python3 python3
# Its gcore dumps a signer that a test looks into.
need gdb gdb
# A SOCKS5 server, in the place of Tor; and Tor itself, in a network of its own on this machine, with HAProxy behind it.
need microsocks microsocks
need tor tor tor-gencert
need haproxy /usr/sbin/haproxy
if [ -n "${CI:-}" ]; then
  # The tests look at the status page with a browser, and at metrics, dashboards and alerts with a Prometheus, where there is one.
  need chromium chromium
  need prometheus prometheus promtool
fi
# For moto, which stands in for AWS. Debian keeps this part of Python in a package of its own.
if ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
if [ -z "${HOLDFAST_BITCOIND:-}" ] && ! command -v bitcoind >/dev/null; then
  # To build a bitcoind once.
  need ninja-build ninja
  need libboost-dev /usr/include/boost/version.hpp
  need libevent-dev /usr/include/event2/event.h
fi

[ ${#missing[@]} -gt 0 ] || exit 0
echo "system packages missing: ${missing[*]}" >&2

if ! command -v apt-get >/dev/null; then
  echo "this is no Debian or Ubuntu: please install what these packages hold, then run this again" >&2
  exit 69
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "not root, and there is no sudo; as root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 77
  fi
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update --quiet >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}" >&2
# Debian starts what it installs; the tests start their own.
for service in tor haproxy prometheus; do
  case " ${missing[*]} " in
    *" $service "*) "${as_root[@]}" systemctl disable --now "$service" >/dev/null 2>&1 || true ;;
  esac
done
