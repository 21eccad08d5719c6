#!/bin/sh
# Initialises a Nitrokey HSM 2 (a SmartCard-HSM) for a Holdfast signer, with a device key encryption key so that its keys can be
# cloned to a second device. ERASES THE DEVICE. From OpenSC's documents; not tried on hardware.
#
#   PIN=... SO_PIN=... setup.sh dkek.pbe      PIN: 6 to 15 characters; SO_PIN: 16 hexadecimal digits
#
# The first device makes dkek.pbe (encrypted; sc-hsm-tool asks for its password), the second imports the same file. Keep it, its
# password and the SO PIN apart from each other and from this machine: with the file and its password, and with the PIN, the
# keys can be taken out of the device.
set -eu
: "${PIN:?}" "${SO_PIN:?}" "${1:?the file of the DKEK share}"
export PIN SO_PIN
[ -e "$1" ] || sc-hsm-tool --create-dkek-share "$1"
sc-hsm-tool --initialize --so-pin env:SO_PIN --pin env:PIN --pin-retry 3 --dkek-shares 1 --label holdfast
sc-hsm-tool --import-dkek-share "$1"
sc-hsm-tool
