#!/bin/bash
# Builds the root file system of the guests on which much else runs, as a directory. Run by crowded.py, which keeps the
# result under a hash of this text.
#
#   build-crowded-root.sh ROOT SYSTEMD_ROOT PACKAGES
#
# SYSTEMD_ROOT is the root of the guests with systemd, of which this is a copy with more programs in it; PACKAGES is a
# folder with the packages of those. None is configured: nothing of them runs before a job starts it.
set -euo pipefail

root=$1 systemd_root=$2 packages=$3
cp -a "$systemd_root" "$root"
for package in "$packages"/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'
done
chroot "$root" ldconfig
# What systemd-oomd runs as.
chroot "$root" useradd --system --no-create-home --shell /usr/sbin/nologin systemd-oom
