#!/bin/sh
# Makes an empty SoftHSM token for a Holdfast signer, and the PIN that opens it. Run as root, once:
#
#   make-token.sh [LABEL]        (default: holdfast)
#
# Leaves /etc/holdfast/softhsm2.conf, /etc/holdfast/pin (for the signer) and /etc/holdfast/so-pin (take it off the machine: it
# can wipe the token and set a new PIN, and nothing else needs it).
set -eu
umask 077
here=$(dirname "$(readlink -f "$0")")
label=${1:-holdfast}
user=holdfast-signer
etc=/etc/holdfast
state=/var/lib/holdfast-signer

command -v softhsm2-util >/dev/null || { echo "softhsm2-util is missing: apt-get install softhsm2" >&2; exit 69; }
id "$user" >/dev/null 2>&1 || { echo "no user $user: see deploy/systemd/README.md, or useradd --system $user" >&2; exit 67; }
[ ! -e "$etc/pin" ] || { echo "$etc/pin exists: a token was made before; nothing was changed" >&2; exit 73; }

install -d -m 0755 "$etc"
install -d -m 0700 -o "$user" "$state" "$state/softhsm" "$state/softhsm/tokens"
install -m 0644 "$here/softhsm2.conf" "$etc/softhsm2.conf"

random() { od -An -N12 -tx1 /dev/urandom | tr -d ' \n'; }
pin=$(random) so_pin=$(random)
# The PINs show in the list of processes for a moment: nobody else should be logged in.
SOFTHSM2_CONF=$etc/softhsm2.conf runuser -u "$user" -- \
    softhsm2-util --init-token --free --label "$label" --pin "$pin" --so-pin "$so_pin"
printf '%s\n' "$so_pin" >"$etc/so-pin"
printf '%s\n' "$pin" >"$etc/pin"
chown "$user" "$etc/pin"
chmod 0400 "$etc/pin" "$etc/so-pin"
echo "token $label is ready; its PIN is in $etc/pin"
