#!/bin/bash
# Builds a small Debian root with NetworkManager, to see what it makes of keyfiles. Run by networkmanager.py, which
# keeps the result under a hash of this text.
#
#   build-networkmanager-root.sh ROOT
set -euo pipefail
. "$(dirname "$0")/common-root.sh"
root=$1

mmdebstrap "${mmdebstrap_options[@]}" --include=network-manager,dbus,wpasupplicant,iproute2 bookworm "$root"

echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
# Nothing of the building machine may stay inside.
rm -f "$root/etc/resolv.conf"
echo networkmanager >"$root/etc/hostname"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
