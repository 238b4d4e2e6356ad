#!/bin/bash
# Builds the root file system of a guest as a directory. Run by rootfs.py, which
# keeps the result under a hash of this text.
#
#   build-rootfs.sh systemd|sysvinit ROOT [KERNEL_ROOT]
#   build-rootfs.sh bullseye|trixie ROOT
#
# systemd and sysvinit are Debian 12; the others are the releases of those names,
# with systemd and a kernel of their own.
#
# KERNEL_ROOT is a root built before, whose kernel and modules are taken over:
# every guest of Debian 12 and every test image must run the very same kernel.
set -euo pipefail
. "$(dirname "$0")/common-root.sh"

flavour=$1 root=$2 kernel_root=${3:-}

packages=("${guest_packages[@]}")
suite=bookworm init=systemd
debian_12=(
    busybox-static      # what the test images run on
    systemd-boot-efi    # the boot loader of UEFI guests and images
    efibootmgr          # for a look at the boot entries from inside
)
case $flavour in
    systemd) packages+=("${debian_12[@]}" systemd systemd-sysv) ;;
    sysvinit) init=sysvinit packages+=("${debian_12[@]}" sysvinit-core sysv-rc initscripts) ;;
    bullseye | trixie) suite=$flavour packages+=(systemd systemd-sysv) ;;
    *) echo "build-rootfs.sh: no such flavour: $flavour" >&2; exit 2 ;;
esac

debs=$(mktemp -d)
trap 'rm -rf "$debs"' EXIT
# shellcheck disable=SC2016  # expanded by mmdebstrap's shell, for each hook
download_kernel='cd "$DEBS"
    export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
    apt-get -q download "$(apt-cache depends linux-image-cloud-amd64 |
        sed -n "s/^ *Depends: \(linux-image-[^ ]*\)$/\1/p")"'
[[ -z $kernel_root ]] || download_kernel=true

DEBS=$debs mmdebstrap "${mmdebstrap_options[@]}" \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --customize-hook="$download_kernel" \
    "$suite" "$root"

# The kernel is unpacked, not installed: nobody needs the initrd that installing
# it would spend half a minute on.
if [[ -n $kernel_root ]]; then
    copy_kernel "$root" "$kernel_root"
else
    dpkg-deb --fsys-tarfile "$debs"/linux-image-*.deb |
        tar -x -C "$root" --keep-directory-symlink --exclude='./usr/share/*'
    version=$(basename "$root"/boot/vmlinuz-*)
    chroot "$root" depmod "${version#vmlinuz-}"
fi

set_up_guest "$root" "$init"
