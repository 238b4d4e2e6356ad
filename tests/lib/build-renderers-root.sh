#!/bin/bash
# Builds a small Debian root with netplan's generator and cloud-init, to have network settings written by the programs
# that write them on devices. Run by renderers.py, which keeps the result under a hash of this text.
#
#   build-renderers-root.sh RELEASE ROOT
set -euo pipefail
. "$(dirname "$0")/common-root.sh"
release=$1 root=$2

mmdebstrap "${mmdebstrap_options[@]}" --include=netplan.io,cloud-init "$release" "$root"

# Nothing of the building machine may stay inside.
rm -f "$root/etc/resolv.conf"
echo renderers >"$root/etc/hostname"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
# Where what is to be rendered is mounted.
mkdir "$root/job"
