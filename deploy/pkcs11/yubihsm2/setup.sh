#!/bin/sh
# Prepares a fresh YubiHSM 2 for a Holdfast signer. From Yubico's documents; not tried on hardware. yubihsm-shell asks for each
# password that is not given here, so that none shows in the list of processes.
#
# Makes three authentication keys, and removes the one that the device is delivered with (id 1, password "password"):
#   0x000a  administrator: everything; its password goes into a safe
#   0x0010  init: makes and removes keys; for `holdfast-signer init`, removed by `setup.sh finish` afterwards
#   0x0011  run: signs and derives, nothing else; what the signer has for good
#
#   setup.sh            before `holdfast-signer init`
#   setup.sh finish     after it
set -eu
use="sign-ecdsa,derive-ecdh"
# The PKCS#11 library keeps labels and ids that the device has no room for in opaque objects of its own.
make="generate-asymmetric-key,delete-asymmetric-key,get-opaque,put-opaque,delete-opaque,$use"
shell() { yubihsm-shell --connector http://127.0.0.1:12345 "$@"; }

case ${1:-begin} in
begin)
    echo "== administrator (0x000a): choose a password"
    shell --authkey 0x0001 --password password --action put-authentication-key --object-id 0x000a --label admin \
        --domains all --capabilities all --delegated all
    echo "== init (0x0010): the administrator's password, then a new one of 8 characters or more"
    shell --authkey 0x000a --action put-authentication-key --object-id 0x0010 --label holdfast-init \
        --domains 1 --capabilities "$make" --delegated "$use"
    echo "== run (0x0011): the administrator's password, then a new one of 8 characters or more"
    shell --authkey 0x000a --action put-authentication-key --object-id 0x0011 --label holdfast-run \
        --domains 1 --capabilities "$use,get-opaque" --delegated none
    echo "== the delivered key is removed: the administrator's password"
    shell --authkey 0x000a --action delete-object --object-id 0x0001 --object-type authentication-key
    echo "now: the PIN file is 0010 and init's password in one line; holdfast-signer init; then: $0 finish"
    ;;
finish)
    shell --authkey 0x000a --action delete-object --object-id 0x0010 --object-type authentication-key
    echo "now: the PIN file is 0011 and run's password in one line; holdfast-signer run"
    ;;
*)
    echo "usage: $0 [finish]" >&2
    exit 64
    ;;
esac
