#!/bin/bash
# Builds a small Debian root with NetworkManager, to see what it makes of keyfiles. Run by networkmanager.py, which
# keeps the result under a hash of this text.
#
#   build-networkmanager-root.sh ROOT
set -euo pipefail
root=$1

mmdebstrap --mode=root --variant=minbase --format=directory --quiet \
    --include=network-manager,dbus,wpasupplicant,iproute2 \
    --aptopt='Acquire::Retries "3"' \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$root"

echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
# Nothing of the building machine may stay inside.
rm -f "$root/etc/resolv.conf"
echo networkmanager >"$root/etc/hostname"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
