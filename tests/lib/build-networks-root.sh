#!/bin/bash
# Builds a small Debian root with the programs that set networks: systemd-networkd with systemd-resolved, ifupdown with
# dhclient, dhcpcd, NetworkManager, keepalived, and dnsmasq for the other end. None is started by the root: there is no
# init in it that runs. Run by network_programs.py, which keeps the result under a hash of this text.
#
#   build-networks-root.sh ROOT
set -euo pipefail
. "$(dirname "$0")/common-root.sh"
root=$1

mmdebstrap "${mmdebstrap_options[@]}" \
    --include=systemd,systemd-resolved,ifupdown,isc-dhcp-client,dhcpcd5,network-manager,dbus,keepalived,dnsmasq-base,bridge-utils,iproute2,procps \
    bookworm "$root"

echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
# Nothing of the building machine may stay inside, and nobody's settings are there before a test writes them.
rm -f "$root/etc/resolv.conf" "$root/etc/network/interfaces" "$root/etc/dhcpcd.conf"
echo networks >"$root/etc/hostname"
echo '127.0.0.1 localhost networks' >"$root/etc/hosts"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
